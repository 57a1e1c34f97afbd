// The loops that show what one core can do, one struct per instruction set, named as its KernelSet. As with the
// kernels, an object of an instruction set exports this one symbol and nothing else (kernels/sets.h says why).
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace onebit {

struct KernelSet;

struct ProbeSet {
    const char* name;
    // Read `bytes` (a multiple of 512) from p on, in order; return something that depends on all of them.
    uint64_t (*read_plain)(const uint8_t* p, size_t bytes);
    uint64_t (*read_prefetch_near)(const uint8_t* p, size_t bytes);  // 4 KB ahead into the first-level cache
    // As the kernels do: 2 KB ahead into the first-level cache, and 16 KB ahead into the second.
    uint64_t (*read_prefetch_both)(const uint8_t* p, size_t bytes);
    // Do at least `count` multiply-adds; return how many it were. *sink takes something that depends on all of them.
    uint64_t (*int8_macs)(uint64_t count, uint64_t* sink);
    uint64_t (*f32_macs)(uint64_t count, uint64_t* sink);
};

extern const ProbeSet probes_scalar;
extern const ProbeSet probes_avx2;
extern const ProbeSet probes_avxvnni;
extern const ProbeSet probes_avx512;
extern const ProbeSet probes_avx512vnni;
extern const ProbeSet probes_amx;  // int8_macs alone: all else is as probes_avx512vnni has it
extern const ProbeSet probes_neon;
extern const ProbeSet probes_neondot;

// The probes of the instruction set that these kernels are made for (probes.cpp).
const ProbeSet& probe_set(const KernelSet& kernels);

}  // namespace onebit
