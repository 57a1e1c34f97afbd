// The kernel sets, one per instruction set (of amx only its products, tiles.h): the only symbol that each of those objects exports. Anything
// more (an inline function, a standard-library template) would be emitted there as a weak symbol compiled for
// that instruction set, and the linker may then choose the AVX-512 copy for code that runs on every machine.
#pragma once

#include "kernels.h"

namespace onebit {

extern const KernelSet kernels_scalar;
extern const KernelSet kernels_avx2;
extern const KernelSet kernels_avxvnni;
extern const KernelSet kernels_avx512;
extern const KernelSet kernels_avx512vnni;
extern const KernelSet kernels_neon;
extern const KernelSet kernels_neondot;

}  // namespace onebit
