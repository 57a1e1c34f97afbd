// Products by tiles: registers of up to 16 lines of 64 bytes, and an instruction that multiplies two of them. tile_products.inl
// has the products, over a type `Tiles` that is the processor's (amx_tiles.inl) or plain C++ (plain_tiles.inl):
//
//     configure(first, second)  how many lines the left tiles with even and odd numbers have, and the sums made of them
//     zero<T>(), load<T>(from, stride), store<T>(to, stride)  whole tiles; their lines lie `stride` bytes apart
//     dot<C, A, B>()  C[i][j] += the sum over k < 64 of A[i][k] * B[k / 4][4 j + k % 4], int8 into int32
//     release()       gives the tiles back: a thread that has them takes longer to be switched
//
// Numbers of tiles are fixed by what they are for: 0 to 3 sums, 4 and 5 left, 6 and 7 right.
#pragma once

#include "kernels.h"

namespace onebit {

// What a set with tiles multiplies by them. All else it takes from another set.
struct TileProducts {
    const char* name;
    SignProduct signs;  // in place of i8_many; its `quantize` is the other set's
    int many_tokens;
    void (*ternary)(int32_t* out, size_t out_stride, TernaryBlocks blocks, RoundedTokens tokens);
    void (*ternary_grouped)(float* out, size_t out_stride, TernaryBlocks blocks, RoundedTokens tokens);
    void (*q8_i8)(int32_t* out, size_t out_stride, const int8_t* w, int n_rows, int cols, const int8_t* q, size_t q_stride,
                  int n_tokens);
    // Whether the instructions do to tiles of every size what plain C++ does.
    bool (*as_plain)();
};

extern const TileProducts kernels_amx;

// In dispatch.cpp: `set` with the products of `tiles`.
KernelSet with_tiles(KernelSet set, const TileProducts& tiles);

// In dispatch.cpp: whether the processor's tiles do what plain C++ does: of every number of lines, which takes some milliseconds.
enum class TileCheck : uint8_t { absent, right, wrong };
TileCheck check_tiles();

}  // namespace onebit
