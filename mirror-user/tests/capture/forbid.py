"""forbid.py CGROUP: attaches a program named "forbidder" to connect4 of a cgroup with flags 0, as
tools without links do: programs below are forbidden from then on."""

import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
def bpf(command, attr):
    buffer = ctypes.create_string_buffer(attr, 128)
    result = libc.syscall(number, command, buffer, 128)
    if result < 0: raise OSError(ctypes.get_errno(), "bpf")
    return result
insns = ctypes.create_string_buffer(bytes([0xb7, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0]))
license = ctypes.create_string_buffer(b"GPL")
program = bpf(5, struct.pack("<IIQQIIQII16sII", 18, 2, ctypes.addressof(insns),
    ctypes.addressof(license), 0, 0, 0, 0, 0, b"forbidder", 0, 10))
bpf(8, struct.pack("<IIII", os.open(sys.argv[1], os.O_RDONLY), program, 10, 0))
