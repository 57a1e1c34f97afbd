// How fast each kernel set multiplies: Gw/s = 1e9 weights times tokens per second, one thread, weights in the L2 cache
// and in DRAM. Exact results are the tests' business.
//
//   cmake --build BUILD --target onebit_engine
//   c++ -O3 -std=c++20 -Ibinding bench/native/kernels_bench.cpp BUILD/CMakeFiles/onebit_engine.dir/binding/system/memory.cpp.o
//       BUILD/CMakeFiles/onebit_engine.dir/binding/kernels/*.o -o kernels_bench
//   kernels_bench [set ...]        (default: every set that can run here)
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "kernels/math.h"
#include "kernels/sets.h"
#include "measuring.h"

using namespace onebit;

namespace {

// One way to multiply by signs.
struct Width {
    const char *sign_name, *grouped_name;
    int most;  // activations are in -most..most
    SignProduct KernelSet::*product;
};
constexpr Width kWidths[] = {{"sign_i8", "grouped_i8", 127, &KernelSet::i8},
                             {"i8_many", "i8_many/128", 127, &KernelSet::i8_many},
                             {"sign_i4", "grouped_i4", 7, &KernelSet::i4}};

void signs_of(const KernelSet* set, const Width& width, const char* place, int rows, int cols,
              const std::vector<int>& token_counts, bool grouped) {
    const int blocks = (rows + set->sign_row_block - 1) / set->sign_row_block;
    rows = blocks * set->sign_row_block;
    const size_t block_bytes = set->sign_block_bytes(cols),
                 table_stride = static_cast<size_t>(padded(static_cast<int64_t>((set->*width.product).table_bytes(cols)), 64));
    Memory weights(static_cast<size_t>(blocks) * block_bytes);
    const SignBlocks signs{weights.bytes(), block_bytes, blocks};
    std::vector<uint16_t> scales(static_cast<size_t>(rows) * static_cast<size_t>(cols / 128), f16_from_f32(0.5f));
    printf("%-11s %-11s %-5s", set->name, grouped ? width.grouped_name : width.sign_name, place);
    for (int tokens : token_counts) {
        std::vector<int8_t> q(static_cast<size_t>(cols));
        for (int i = 0; i < cols; i++)
            q[static_cast<size_t>(i)] = static_cast<int8_t>(i * 37 % (2 * width.most + 1) - width.most);
        Memory tables(table_stride * static_cast<size_t>(tokens));
        for (int t = 0; t < tokens; t++)
            (set->*width.product).table_build(tables.bytes() + static_cast<size_t>(t) * table_stride, q.data(), cols);
        Memory out(static_cast<size_t>(rows) * static_cast<size_t>(tokens) * 4);
        const double seconds = best_seconds([&] {
            if (grouped) {
                (set->*width.product).grouped(reinterpret_cast<float*>(out.bytes()), static_cast<size_t>(rows), signs,
                                              scales.data(), cols, tables.bytes(), table_stride, tokens, false);
            } else {
                (set->*width.product).sign(reinterpret_cast<int32_t*>(out.bytes()), static_cast<size_t>(rows), signs, cols,
                                           tables.bytes(), table_stride, tokens, false);
            }
        });
        printf("  %3d: %6.1f Gw/s", tokens, static_cast<double>(rows) * cols * tokens / seconds * 1e-9);
        if (tokens == 1) printf(" (%.1f GB/s)", static_cast<double>(block_bytes) * blocks / seconds * 1e-9);
    }
    printf("\n");
}

void signs(const KernelSet* set, const char* place, int rows, int cols, const std::vector<int>& token_counts,
           bool grouped) {
    for (const Width& width : kWidths) signs_of(set, width, place, rows, cols, token_counts, grouped);
}

void rows8(const KernelSet* set, const char* place, int rows, int cols) {
    Memory w(static_cast<size_t>(rows) * static_cast<size_t>(cols)), q(static_cast<size_t>(cols) * 64),
        out(static_cast<size_t>(rows) * 256);
    for (int i = 0; i < cols * 64; i++) q.bytes()[i] = static_cast<uint8_t>(i % 127);
    printf("%-11s %-11s %-5s", set->name, "q8_i8", place);
    for (int tokens : {1, 2, 4, 8, 64}) {
        const double seconds = best_seconds([&] {
            set->q8_i8(reinterpret_cast<int32_t*>(out.bytes()), static_cast<size_t>(rows), reinterpret_cast<int8_t*>(w.bytes()),
                       rows, cols, reinterpret_cast<int8_t*>(q.bytes()), static_cast<size_t>(cols), tokens);
        });
        printf("  %3d: %6.1f Gw/s", tokens, static_cast<double>(rows) * cols * tokens / seconds * 1e-9);
    }
    printf("\n");
}

// group: columns of a scale, or 0.
void ternary(const KernelSet* set, const char* place, int rows, int cols, int group, const std::vector<int>& token_counts) {
    const size_t bytes = static_cast<size_t>(rows) * ternary_row_bytes(cols), stride = static_cast<size_t>(cols);
    Memory codes(bytes), q(stride * 64), out(static_cast<size_t>(rows) * 256);
    std::vector<uint16_t> scales(static_cast<size_t>(rows) * static_cast<size_t>(group > 0 ? cols / group : 0), f16_from_f32(0.5f));
    std::vector<int32_t> offsets(stride / 64 * 64);
    const TernaryBlocks blocks{codes.bytes(), scales.data(), rows / kTernaryRows, cols, group};
    printf("%-11s ternary/%-3d %-5s", set->name, group, place);
    for (int tokens : token_counts) {
        const RoundedTokens given{q.as<int8_t>(), stride, offsets.data(), stride / 64, tokens};
        const double seconds = best_seconds([&] {
            if (group > 0) {
                set->ternary_grouped(out.as<float>(), static_cast<size_t>(rows), blocks, given);
            } else {
                set->ternary(out.as<int32_t>(), static_cast<size_t>(rows), blocks, given);
            }
        });
        printf("  %3d: %6.1f Gw/s", tokens, static_cast<double>(rows) * cols * tokens / seconds * 1e-9);
        if (tokens == 1) printf(" (%.1f GB/s)", static_cast<double>(bytes) / seconds * 1e-9);
    }
    printf("\n");
}

void floats(const KernelSet* set) {
    const int rows = 512, cols = 1024;
    Memory w(static_cast<size_t>(rows * cols) * 4), x(static_cast<size_t>(cols) * 32),
        out(static_cast<size_t>(rows) * 32);
    float* xf = reinterpret_cast<float*>(x.bytes());
    for (int i = 0; i < cols * 8; i++) xf[i] = static_cast<float>(i % 17) * 0.1f;
    for (int i = 0; i < rows * cols; i++) reinterpret_cast<uint16_t*>(w.bytes())[i] = 0x3400;
    printf("%-11s floats L2    ", set->name);
    const double per = static_cast<double>(rows) * cols;
    float* o = reinterpret_cast<float*>(out.bytes());
    const size_t stride = static_cast<size_t>(cols);
    double s = best_seconds([&] { set->sign_f32(o, rows, w.bytes(), rows, cols, xf, stride, 1); });
    printf("  sign_f32 %.1f", per / s * 1e-9);
    for (int tokens : {1, 8}) {
        s = best_seconds([&] { set->dense_f32(o, rows, w.bytes(), DType::f16, rows, cols, xf, stride, tokens); });
        printf("  f16 x %d: %.1f", tokens, per * tokens / s * 1e-9);
        s = best_seconds([&] { set->q8_f32(o, rows, reinterpret_cast<int8_t*>(w.bytes()), rows, cols, xf, stride, tokens); });
        printf("  q8_f32 x %d: %.1f", tokens, per * tokens / s * 1e-9);
    }
    printf(" Gw/s\n");
    // 1024 positions of a 128-wide f16 head: multiply-adds of scores and values together.
    const KvHead kv{w.bytes(), w.bytes(), DType::f16, size_t{kKvChunk} * 128 * 2};
    std::vector<float> scratch((128 + 1024) * 16);
    printf("%-11s attend f16   ", set->name);
    for (int heads : {1, 4, 8, 16}) {
        std::vector<AttendQuery> queries;
        for (int j = 0; j < heads; j++) queries.push_back({xf + 128 * j, o + 128 * j, 0, 1024});
        s = best_seconds([&] { set->attend(queries.data(), heads, kv, 128, 0.1f, scratch.data(), nullptr); });
        printf("  %d heads: %.1f", heads, 1024.0 * 128 * 2 * heads / s * 1e-9);
    }
    printf(" Gmadd/s\n%-11s rows         ", set->name);
    std::vector<int8_t> q(4096);
    std::vector<uint8_t> table(set->i8.table_bytes(4096));
    s = best_seconds([&] {
        for (int i = 0; i < 100; i++) set->quantize(q.data(), xf, xf, 4096);
    });
    printf("  quantize 4096: %.2f us", s * 1e4);
    s = best_seconds([&] {
        for (int i = 0; i < 100; i++) set->i8.table_build(table.data(), q.data(), 4096);
    });
    printf("  table 4096: %.2f us", s * 1e4);
    s = best_seconds([&] {
        for (int i = 0; i < 100; i++) set->quantize4(q.data(), xf, xf, 4096);
    });
    printf("  quantize4 4096: %.2f us", s * 1e4);
    s = best_seconds([&] {
        for (int i = 0; i < 100; i++) set->i4.table_build(table.data(), q.data(), 4096);
    });
    printf("  planes 4096: %.2f us", s * 1e4);
    s = best_seconds([&] {
        for (int i = 0; i < 100; i++) set->activate(o, xf, xf, 4096, Activation::silu);
    });
    printf("  silu 4096: %.2f us", s * 1e4);
    s = best_seconds([&] { set->crc32c(0, w.bytes(), static_cast<size_t>(rows * cols) * 2); });
    printf("  crc32c: %.1f GB/s", per * 2 / s * 1e-9);
    s = best_seconds([&] { set->sign_pack(w.bytes(), w.bytes() + (1u << 20), set->sign_row_block, 4096); });
    printf("  pack: %.2f GB/s\n", set->sign_row_block * 512 / s * 1e-9);
}

}  // namespace

int main(int argc, char** argv) {
    int count = 0;
    const IsaEntry* table = isa_table(&count);
    for (int i = 0; i < count; i++) {
        const char* why = nullptr;
        bool wanted = argc == 1;
        for (int a = 1; a < argc; a++) wanted = wanted || strcmp(argv[a], table[i].name) == 0;
        const KernelSet* set = wanted ? choose_kernels(table[i].name, &why) : nullptr;
        if (!set) continue;
        signs(set, "L2", 1024, 4096, {1, 2, 4, 8, 64}, false);
        signs(set, "L2", 512, 11008, {1, 2, 4, 8, 64}, false);
        signs(set, "L2", 1024, 4096, {1, 4, 64}, true);
        signs(set, "DRAM", strcmp(set->name, "scalar") == 0 ? 16384 : 1 << 19, 8192, {1, 4}, false);
        for (const int group : {0, 64, 128}) ternary(set, "L2", 1024, 4096, group, {1, 2, 4, 8, 64});
        ternary(set, "DRAM", strcmp(set->name, "scalar") == 0 ? 16384 : 1 << 18, 8192, 128, {1, 4});
        rows8(set, "L2", 256, 4096);
        rows8(set, "DRAM", 65536, 4096);
        floats(set);
    }
    return 0;
}
