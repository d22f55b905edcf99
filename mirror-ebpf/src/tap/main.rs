//! The programs for the kernel of an agent that taps: connect (marks the sockets of tapped frontends,
//! and takes the others to the agent), egress (copies what marked sockets send).
//!
//! Every exit lets the application's call, or its packet, go on: neither hook ever returns 0.
#![no_std]
#![no_main]

#[path = "../connect.rs"]
mod connect;
#[path = "../connect6.rs"]
mod connect6;
#[path = "../count.rs"]
mod count;
mod egress;
mod hooks;
#[path = "../maps.rs"]
mod maps;
mod mark;
mod records;
mod segment;
#[path = "../words.rs"]
mod words;
#[path = "../workers.rs"]
mod workers;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The programs hold no reachable panic (the verifier would refuse the endless loop).
    loop {}
}

/// The kernel's helpers ask for a licence that is compatible with the GPL; the programs are dual
/// licensed, Apache-2.0 or GPL-2.0, and the kernel knows no name for that pair.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
