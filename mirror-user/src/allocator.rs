//! The agent's allocator: jemalloc, because it gives what is free back to the kernel in the background,
//! holes between what is in use included.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// jemalloc's options (jemalloc(3); `slab_sizes` is in its src/jemalloc.c). `_RJEM_MALLOC_CONF` in the
/// environment overrides them.
///
/// - A thread in the background gives pages that have been free for 200 ms back to the kernel; without
///   it a thread would do so only when it allocates next.
/// - Slabs of one page, because each thread keeps a region of every size that it has used, and with it
///   the slab: an agent with 1,000 frontends has 33 MiB resident once it is ready, 39 with the default
///   of up to seven pages.
/// - No page of padding for each large buffer, which jemalloc adds to spread them over the CPU's caches:
///   copies hold buffers of 32 KiB, and their budgets do not count padding.
const OPTIONS: &str = concat!(
    "background_thread:true,max_background_threads:1,",
    "dirty_decay_ms:200,muzzy_decay_ms:0,",
    "slab_sizes:1-1024:1,",
    "cache_oblivious:false",
    "\0",
);

/// Where jemalloc looks for the options when it starts: a pointer to a string that ends with NUL.
#[used]
#[allow(unsafe_code, reason = "jemalloc reads a symbol of this name; nothing else has it")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: &[u8; OPTIONS.len()] = OPTIONS.as_bytes().first_chunk().unwrap();
