"""Lets libraries that were built with glibc 2.38 load on an older one.

python older-glibc.py FOLDER

Since 2.38, headers give strtol, sscanf and their like other names (__isoc23_strtol), which read `0b101` too. A library
that asks for nothing else of 2.38 is pointed at the old names and at the version that has them; nothing that computes
is touched. Every .so file of FOLDER is looked at; those that need nothing of 2.38 stay as they are.
"""

import os
import re
import struct
import sys
from pathlib import Path

PREFIX = b"__isoc23_"
NEW, OLD = b"GLIBC_2.38", b"GLIBC_2.2.5"  # x86-64's first


def string_at(data, at):
    return bytes(data[at : data.index(b"\0", at)])


def sections(data):
    """Name -> (offset, size) of a 64-bit little-endian ELF file."""
    table, entry_size, count, names = struct.unpack_from("<Q10xHHH", data, 0x28)
    headers = [struct.unpack_from("<IIQQQQ", data, table + i * entry_size) for i in range(count)]
    return {string_at(data, headers[names][4] + name): (at, size) for name, _, _, _, at, size in headers}


def version_hash(name):
    """As the ELF specification's hash table has it."""
    value = 0
    for byte in name:
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ high >> 24) & ~high
    return value


def needed_versions(data, at):
    """Where each entry lies that says which version of another library is needed."""
    while True:
        _, count, _, first, following = struct.unpack_from("<HHIII", data, at)
        entry = at + first
        for _ in range(count):
            yield entry
            entry += struct.unpack_from("<I", data, entry + 12)[0]
        if following == 0:
            return
        at += following


def use_old_names(data):
    """Changes `data`; whether there was anything to change."""
    found = sections(data)
    strings = found[b".dynstr"][0]
    changed = False
    symbols, size = found[b".dynsym"]
    for at in range(symbols, symbols + size, 24):
        (name,) = struct.unpack_from("<I", data, at)
        if string_at(data, strings + name).startswith(PREFIX):
            struct.pack_into("<I", data, at, name + len(PREFIX))
    for at in needed_versions(data, found[b".gnu.version_r"][0]):
        if string_at(data, strings + struct.unpack_from("<I", data, at + 8)[0]) != NEW:
            continue
        old = data.index(b"\0" + OLD + b"\0", strings) + 1 - strings
        struct.pack_into("<I", data, at, version_hash(OLD))
        struct.pack_into("<I", data, at + 8, old)
        changed = True
    return changed


def main():
    version = re.findall(r"\d+", os.confstr("CS_GNU_LIBC_VERSION"))
    if [int(part) for part in version] >= [2, 38]:
        return
    for path in Path(sys.argv[1]).glob("*.so*"):
        data = bytearray(path.read_bytes())
        if use_old_names(data):
            path.write_bytes(data)


main()
