//! The programs for the kernel, in the order of a connection's life: connect (takes it to the
//! agent), sk_lookup (gives it to a live worker), names (give the application its own view back).
//!
//! Every exit lets the application's call go on: connect never returns 0, which would refuse it.
//!
//! An agent that taps loads the connect hooks of the other binary, `tap`, instead of these.
#![no_std]
#![no_main]

mod connect;
mod connect6;
mod count;
mod hooks;
mod maps;
#[path = "unmarked.rs"]
mod mark;
mod names;
mod names6;
mod steer;
mod words;
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
