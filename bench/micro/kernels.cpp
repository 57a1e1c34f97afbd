#include "kernels.h"

#include <stdlib.h>
#include <string.h>

#include <array>
#include <memory>

#include "../native/measuring.h"
#include "kernels/math.h"

namespace onebit {

namespace {

// Shared by the cases that use it.
using Shared = std::shared_ptr<Memory>;

Shared memory(size_t bytes) { return std::make_shared<Memory>(bytes); }

// Floats around 1, or f16 numbers: arbitrary bits would be NaNs and denormals, which take other paths in some CPUs.
Shared floats(size_t count) {
    Shared made = memory(count * sizeof(float));
    for (size_t i = 0; i < count; ++i) made->as<float>()[i] = static_cast<float>(i % 17) * 0.125f - 1.0625f;
    return made;
}

Shared halves(size_t count) {
    Shared made = memory(count * sizeof(uint16_t));
    for (size_t i = 0; i < count; ++i) made->as<uint16_t>()[i] = static_cast<uint16_t>(0x3400 + i % 512);
    return made;
}

Shared int8s(size_t count) {
    Shared made = memory(count);
    for (size_t i = 0; i < count; ++i)
        made->as<int8_t>()[i] = static_cast<int8_t>(static_cast<int>(i * 37 % 255) - 127);
    return made;
}

std::string text(int64_t value) { return std::to_string(value); }

// One way to multiply by signs.
struct Product {
    const char *sign_name, *grouped_name, *build_name;
    int most;  // activations are in -most..most
    const SignProduct& product;
};

class Cases {
public:
    explicit Cases(const KernelSet& set) : set_(set) {}

    std::vector<KernelCase> take() { return std::move(cases_); }

    // rows x cols signs; `place` says what they fit into.
    void signs(const Product& way, int rows, int cols, const char* place, std::vector<int> token_counts) {
        const int blocks = (rows + set_.sign_row_block - 1) / set_.sign_row_block;
        const size_t out_rows = static_cast<size_t>(blocks) * static_cast<size_t>(set_.sign_row_block);
        const size_t block_bytes = set_.sign_block_bytes(cols);
        const Shared weights = memory(static_cast<size_t>(blocks) * block_bytes);
        const auto sign = way.product.sign;
        for (int tokens : token_counts) {
            const auto [tables, stride] = tables_of(way, cols, tokens);
            const Shared out = memory(out_rows * static_cast<size_t>(tokens) * sizeof(int32_t));
            add(way.sign_name, size(rows, cols, tokens, place), "Gw/s", weight_tokens(out_rows, cols, tokens),
                [=, tables = tables, stride = stride] {
                    const SignBlocks signs{weights->bytes(), block_bytes, blocks};
                    sign(out->as<int32_t>(), out_rows, signs, cols, tables->bytes(), stride, tokens, false);
                });
        }
    }

    void grouped(const Product& way, int rows, int cols, std::vector<int> token_counts) {
        const int blocks = (rows + set_.sign_row_block - 1) / set_.sign_row_block;
        const size_t out_rows = static_cast<size_t>(blocks) * static_cast<size_t>(set_.sign_row_block);
        const size_t block_bytes = set_.sign_block_bytes(cols);
        const Shared weights = memory(static_cast<size_t>(blocks) * block_bytes);
        const Shared scales = halves(out_rows * static_cast<size_t>(cols / 128));
        const auto grouped = way.product.grouped;
        for (int tokens : token_counts) {
            const auto [tables, stride] = tables_of(way, cols, tokens);
            const Shared out = memory(out_rows * static_cast<size_t>(tokens) * sizeof(float));
            add(way.grouped_name, size(rows, cols, tokens, "L2"), "Gw/s", weight_tokens(out_rows, cols, tokens),
                [=, tables = tables, stride = stride] {
                    const SignBlocks signs{weights->bytes(), block_bytes, blocks};
                    grouped(out->as<float>(), out_rows, signs, scales->as<uint16_t>(), cols, tables->bytes(), stride,
                            tokens, false);
                });
        }
    }

    // What turns rounded activations into the form that a product reads.
    void build(const Product& way, int cols) {
        const auto [tables, stride] = tables_of(way, cols, 1);
        const Shared q = activations_of(way, cols);
        const auto table_build = way.product.table_build;
        add(way.build_name, text(cols) + " values", "Gvalue/s", cols,
            [=, tables = tables] { table_build(tables->bytes(), q->as<int8_t>(), cols); });
    }

    void signs_of_floats(int rows, int cols) {
        const Shared weights = memory(static_cast<size_t>(rows) * static_cast<size_t>(cols / 8));
        const Shared scales = halves(static_cast<size_t>(rows) * static_cast<size_t>(cols / 128));
        const Shared x = floats(static_cast<size_t>(cols)), out = floats(static_cast<size_t>(rows));
        const KernelSet& set = set_;
        const auto rows_of_out = static_cast<size_t>(rows), stride = static_cast<size_t>(cols);
        const double work = weight_tokens(rows_of_out, cols, 1);
        add("sign_f32", size(rows, cols, 1, "L2"), "Gw/s", work, [=, &set] {
            set.sign_f32(out->as<float>(), rows_of_out, weights->bytes(), rows, cols, x->as<float>(), stride, 1);
        });
        add("grouped_f32", size(rows, cols, 1, "L2"), "Gw/s", work, [=, &set] {
            set.grouped_f32(out->as<float>(), rows_of_out, weights->bytes(), scales->as<uint16_t>(), rows, cols,
                            x->as<float>(), stride, 1);
        });
    }

    void dense(int rows, int cols) {
        const size_t count = static_cast<size_t>(rows) * static_cast<size_t>(cols);
        const Shared half = halves(count), eight = int8s(count), full = floats(count);
        const Shared x = floats(static_cast<size_t>(cols) * 64), q = int8s(static_cast<size_t>(cols) * 64);
        const Shared out = floats(static_cast<size_t>(rows) * 64);
        const KernelSet& set = set_;
        const auto n = static_cast<size_t>(rows), stride = static_cast<size_t>(cols);
        for (int tokens : {1, 8}) {
            const double work = weight_tokens(n, cols, tokens);
            const std::string what = size(rows, cols, tokens, "L2");
            add("dense_f32", "f16, " + what, "Gw/s", work, [=, &set] {
                set.dense_f32(out->as<float>(), n, half->bytes(), DType::f16, rows, cols, x->as<float>(), stride,
                              tokens);
            });
            add("dense_f32", "f32, " + what, "Gw/s", work, [=, &set] {
                set.dense_f32(out->as<float>(), n, full->bytes(), DType::f32, rows, cols, x->as<float>(), stride,
                              tokens);
            });
            add("q8_f32", what, "Gw/s", work, [=, &set] {
                set.q8_f32(out->as<float>(), n, eight->as<int8_t>(), rows, cols, x->as<float>(), stride, tokens);
            });
        }
        for (int tokens : {1, 8, 64}) {
            add("q8_i8", size(rows, cols, tokens, "L2"), "Gw/s", weight_tokens(n, cols, tokens), [=, &set] {
                set.q8_i8(out->as<int32_t>(), n, eight->as<int8_t>(), rows, cols, q->as<int8_t>(), stride, tokens);
            });
        }
    }

    // Multiply-adds of scores and values together.
    void attention(int positions, int head_dim) {
        constexpr int kMostHeads = 24;
        const auto count = static_cast<size_t>(positions) * static_cast<size_t>(head_dim);
        const Shared k = halves(count), v = halves(count), k8 = int8s(count), v8 = int8s(count);
        const Shared scales = floats(static_cast<size_t>(positions));
        const Shared q = floats(static_cast<size_t>(head_dim) * kMostHeads), out = floats(static_cast<size_t>(head_dim) * kMostHeads);
        const Shared scratch = floats(static_cast<size_t>(padded(head_dim, 16) + padded(positions, 16)) * kMostHeads);
        const KernelSet& set = set_;
        for (DType dtype : {DType::f16, DType::q8}) {
            const bool half = dtype == DType::f16;
            const float* scale = half ? nullptr : scales->as<float>();
            const size_t chunk = size_t{kKvChunk} * static_cast<size_t>(head_dim) * element_bytes(dtype);
            const KvHead kv{half ? k->bytes() : k8->bytes(), half ? v->bytes() : v8->bytes(), dtype, chunk, scale, scale,
                            kKvChunk * sizeof(float)};
            for (int heads : {1, 4, 8, kMostHeads}) {
                const std::string what = text(heads) + (heads == 1 ? " head of " : " heads of ") + text(head_dim) +
                                         ", " + text(positions) + " positions, " + (half ? "f16" : "int8");
                add("attend", what, "Gmadd/s", 2.0 * positions * head_dim * heads,
                    [=, &set, keep = std::array{k, v, k8, v8, scales}] {
                        AttendQuery queries[kMostHeads];
                        for (int i = 0; i < heads; ++i)
                            queries[i] = {q->as<float>() + i * head_dim, out->as<float>() + i * head_dim, 0,
                                          positions};
                        set.attend(queries, heads, kv, head_dim, 0.1f, scratch->as<float>(), nullptr);
                    });
            }
        }
    }

    void rows_of(int n) {
        const auto count = static_cast<size_t>(padded(n, 64));
        const Shared x = floats(count), y = floats(count), out = floats(count), sums = memory(count * sizeof(int32_t));
        const Shared q = int8s(count), half = halves(count);
        const KernelSet& set = set_;
        const std::string what = text(n) + " values";
        const auto row = [&](const char* kernel, std::function<void()> run) {
            add(kernel, what, "Gvalue/s", n, std::move(run));
        };
        row("quantize", [=, &set] { set.quantize(q->as<int8_t>(), x->as<float>(), y->as<float>(), n); });
        row("multiply", [=, &set] { set.multiply(out->as<float>(), x->as<float>(), y->as<float>(), n); });
        row("scale_i32", [=, &set] { set.scale_i32(out->as<float>(), sums->as<int32_t>(), 0.5f, y->as<float>(), n); });
        row("scale_planes", [=, &set] {
            const float scale[2] = {0.5f, 0.01f};
            set.scale_planes(out->as<float>(), sums->as<int32_t>(), sums->as<int32_t>(), scale, y->as<float>(), n);
        });
        row("scale_f32", [=, &set] { set.scale_f32(out->as<float>(), x->as<float>(), 0.5f, y->as<float>(), n); });
        row("rmsnorm", [=, &set] { set.rmsnorm(out->as<float>(), x->as<float>(), y->as<float>(), n, 1e-5f); });
        row("layernorm", [=, &set] {
            float* x = out->as<float>();
            set.layernorm(&x, 1, n, 1e-5f);
        });
        row("silu_mul", [=, &set] {
        set.activate(out->as<float>(), x->as<float>(), y->as<float>(), n, Activation::silu);
    });
        if (n % 1024 == 0) {
            const int block = n & -n;  // the largest that there can be
            const Shared signs = memory(count / 8);
            row("hadamard", [=, &set] { set.hadamard(out->as<float>(), x->as<float>(), signs->bytes(), n, block); });
        }
        row("f32_to_f16", [=, &set] { set.f32_to_f16(half->as<uint16_t>(), x->as<float>(), n); });
        row("f16_to_f32", [=, &set] { set.f16_to_f32(out->as<float>(), half->as<uint16_t>(), n); });
    }

    void others() {
        const KernelSet& set = set_;
        const Shared head = floats(128), turn = floats(128), logits = floats(32000), official = memory(1u << 20);
        for (bool interleaved : {false, true}) {
            add("rope", interleaved ? "128 values, interleaved" : "128 values, half", "Gvalue/s", 128, [=, &set] {
                set.rope(head->as<float>(), turn->as<float>(), turn->as<float>() + 64, 128, interleaved);
            });
        }
        add("max_sum_exp", "32000 values", "Gvalue/s", 32000, [=, &set] {
            float max = 0, sum = 0;
            set.max_sum_exp(&max, &sum, logits->as<float>(), 32000);
        });
        add("crc32c", "1 MiB", "GB/s", 1 << 20, [=, &set] { set.crc32c(0, official->bytes(), 1u << 20); });
        const int rows = set.sign_row_block, cols = 4096;
        const Shared block = memory(set.sign_block_bytes(cols));
        add("sign_pack", text(rows) + " x " + text(cols), "GB/s", static_cast<double>(rows) * cols / 8,
            [=, &set] { set.sign_pack(block->bytes(), official->bytes(), rows, cols); });
    }

private:
    static double weight_tokens(size_t rows, int cols, int tokens) { return static_cast<double>(rows) * cols * tokens; }

    static std::string size(int rows, int cols, int tokens, const char* place) {
        return text(rows) + " x " + text(cols) + " in " + place + ", " + text(tokens) +
               (tokens == 1 ? " token" : " tokens");
    }

    static Shared activations_of(const Product& way, int cols) {
        const Shared q = memory(static_cast<size_t>(padded(cols, 64)));
        for (int i = 0; i < padded(cols, 64); ++i)
            q->as<int8_t>()[i] = static_cast<int8_t>(i < cols ? i * 37 % (2 * way.most + 1) - way.most : 0);
        return q;
    }

    static std::pair<Shared, size_t> tables_of(const Product& way, int cols, int tokens) {
        const auto stride = static_cast<size_t>(padded(static_cast<int64_t>(way.product.table_bytes(cols)), 64));
        const Shared q = activations_of(way, cols), tables = memory(stride * static_cast<size_t>(tokens));
        for (int t = 0; t < tokens; ++t)
            way.product.table_build(tables->bytes() + static_cast<size_t>(t) * stride, q->as<int8_t>(), cols);
        return {tables, stride};
    }

    void add(const char* kernel, std::string what, const char* unit, double work, std::function<void()> run) {
        cases_.push_back({kernel, std::move(what), unit, work, std::move(run)});
    }

    const KernelSet& set_;
    std::vector<KernelCase> cases_;
};

}  // namespace

std::vector<KernelCase> kernel_cases(const KernelSet& set, bool all) {
    Cases cases(set);
    const Product i8{"sign_i8", "grouped_i8", "table_build", 127, set.i8};
    const Product many{"sign_i8_many", "grouped_i8_many", "table_build_many", 127, set.i8_many};
    const Product i4{"sign_i4", "grouped_i4", "planes_build", 7, set.i4};
    cases.signs(i8, 1024, 4096, "L2", {1, 2, 4, 8, 64});
    cases.signs(i8, 512, 11008, "L2", {1, 64});
    if (all) cases.signs(i8, 1 << 18, 8192, "DRAM", {1, 4});
    cases.grouped(i8, 1024, 4096, {1, 4, 64});
    cases.build(i8, 4096);
    if (set.i8_many.sign != set.i8.sign) {
        cases.signs(many, 1024, 4096, "L2", {2, 4, 8, 64});
        cases.grouped(many, 1024, 4096, {4, 64});
        cases.build(many, 4096);
    }
    cases.signs(i4, 1024, 4096, "L2", {1, 8, 64});
    cases.build(i4, 4096);
    cases.signs_of_floats(1024, 4096);
    cases.dense(256, 1024);
    cases.attention(1024, 128);
    cases.attention(2048, 64);
    cases.rows_of(4096);
    cases.others();
    return cases.take();
}

}  // namespace onebit
