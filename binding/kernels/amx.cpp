// AMX (Sapphire Rapids and later), over AVX-512 with VBMI and GFNI.
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns about the deliberately undefined registers inside its own AVX-512 header.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "sets.h"
#include "tiles.h"

namespace onebit {
namespace {

#include "unrolled.inl"
#include "avx512_vectors.inl"
#include "plain_tiles.inl"
#include "amx_tiles.inl"
#include "amx_spread.inl"

using Tiles = AmxTiles;
inline const KernelSet& fewer() { return kernels_avx512vnni; }

#include "tile_products.inl"
#include "tile_check.inl"

}  // namespace

const TileProducts kernels_amx = tile_products("amx", as_plain);

}  // namespace onebit
