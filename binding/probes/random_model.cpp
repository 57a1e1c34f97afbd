#include "probes/random_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/math.h"
#include "probes/available_memory.h"
#include "model/bind.h"

namespace onebit {

namespace {

// Rows of one task: small enough to stay in a core's second-level cache on their way into the layout.
constexpr size_t kPieceBytes = size_t{256} << 10;
// The root mean square of bytes from -127 to 127, all equally likely.
constexpr double kByteSize = 73.3;

// SplitMix64 (Steele, Lea, Flood 2014). Any place of its sequence can be had at once, so each row has one of its own.
uint64_t mixed(uint64_t z) {
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
constexpr uint64_t kGolden = 0x9e3779b97f4a7c15u;

uint64_t row_seed(uint64_t seed, uint64_t tensor, uint64_t row) {
    return mixed(mixed(mixed(seed + kGolden) + tensor * kGolden) + row * kGolden);
}

// `bytes` random bytes; of each 8 the bits outside `keep` are those of `set`.
void random_bytes(uint8_t* out, size_t bytes, uint64_t seed, uint64_t keep = ~uint64_t{0}, uint64_t set = 0) {
    size_t i = 0;
    for (; i + 8 <= bytes; i += 8) {
        const uint64_t word = (mixed(seed += kGolden) & keep) | set;
        std::memcpy(out + i, &word, 8);
    }
    const uint64_t last = (mixed(seed + kGolden) & keep) | set;
    std::memcpy(out + i, &last, bytes - i);
}

// The power of two m for which numbers spread evenly over m..2m (mean square 7/3 m^2), `cols` of them to a row, make
// products about as large as their input. As -log2(m).
int halvings(int cols) {
    int count = 0;
    for (double m = 1; m * m * cols * 7 / 3 > 2; m /= 2) ++count;
    return count;
}

// How one tensor is filled.
struct Fill {
    const TensorRead* read;
    uint64_t tensor;
    float middle = 0, spread = 0;  // floats
    uint64_t keep = ~uint64_t{0}, set = 0;
};

// A number in every field of `width` bits: sign and mantissa are random, the exponent field is `exponent`.
void keep_exponent(Fill* fill, int width, int mantissa, bool signs, int exponent) {
    fill->keep = 0;
    const uint64_t field = (uint64_t{1} << mantissa) - 1 + (signs ? uint64_t{1} << (width - 1) : 0);
    for (int at = 0; at < 64; at += width) {
        fill->keep |= field << at;
        fill->set |= static_cast<uint64_t>(exponent) << mantissa << at;
    }
}

// inputs: columns of the matrix that a scale belongs to, 0 before the first; bytes: whether that matrix is int8.
Fill choose_fill(const TensorRead& read, uint64_t tensor, int inputs, bool bytes) {
    Fill fill{&read, tensor};
    switch (read.holds) {
        case TensorRead::Holds::floats: {
            // a column is multiplied by about as many numbers as a row of the matrix
            const bool scale = read.name.ends_with(".h") || read.name.ends_with(".v") || read.name.ends_with(".mid") || read.name.ends_with(".scale");
            if (read.name.ends_with(".bias")) {
                fill.spread = 0.1f;
            } else if (read.name.ends_with(".conv") || read.name.ends_with(".time_bias")) {
                fill.spread = 0.5f;
            } else if (read.name.ends_with(".decay")) {
                fill.middle = -0.5f;  // a state has to forget
                fill.spread = 0.4f;
            } else {
                const double size = scale ? 1 / (std::sqrt(static_cast<double>(inputs)) * (bytes ? kByteSize : 1)) : 1;
                fill.middle = static_cast<float>(size);
                fill.spread = fill.middle / 2;
            }
            break;
        }
        case TensorRead::Holds::signs:
        case TensorRead::Holds::ternary:
            break;
        case TensorRead::Holds::group_scales:
            keep_exponent(&fill, 16, 10, false, 15 - halvings(inputs));
            break;
        case TensorRead::Holds::dense:
            if (read.type == FileType::f32) keep_exponent(&fill, 32, 23, true, 127 - halvings(read.cols));
            if (read.type == FileType::f16) keep_exponent(&fill, 16, 10, true, 15 - halvings(read.cols));
            if (read.type == FileType::bf16) keep_exponent(&fill, 16, 7, true, 127 - halvings(read.cols));
            break;
    }
    return fill;
}

std::vector<Fill> choose_fills(const std::vector<TensorRead>& reads) {
    std::vector<Fill> fills;
    int inputs = 0;
    bool bytes = false;
    for (const TensorRead& read : reads) {
        if (read.holds != TensorRead::Holds::floats && read.holds != TensorRead::Holds::group_scales) {
            inputs = read.cols;
            bytes = read.type == FileType::i8;
        }
        fills.push_back(choose_fill(read, fills.size(), inputs, bytes));
    }
    return fills;
}

void fill_floats(const Fill& fill, uint64_t seed, uint8_t* out) {
    for (int i = 0; i < fill.read->cols; ++i, seed += kGolden) {
        const float uniform = static_cast<float>(mixed(seed) >> 40) * 0x1p-23f - 1.0f;  // -1..1, exact
        const float value = fill.middle + fill.spread * uniform;
        const auto at = static_cast<size_t>(i);
        if (fill.read->type == FileType::f16) {
            const uint16_t half = f16_from_f32(value);
            std::memcpy(out + 2 * at, &half, 2);
        } else {
            std::memcpy(out + 4 * at, &value, 4);
        }
    }
}

// Four codes of which each 3 has become a 0, 1 or 2.
struct CodesWithoutThrees {
    uint8_t of[256];
};
constexpr CodesWithoutThrees make_codes() {
    CodesWithoutThrees codes{};
    for (int byte = 0; byte < 256; ++byte) {
        int kept = byte;
        for (int j = 0; j < 4; ++j) {
            if ((byte >> 2 * j & 3) == 3) kept ^= (1 + (byte + j) % 3) << 2 * j;
        }
        codes.of[byte] = static_cast<uint8_t>(kept);
    }
    return codes;
}
constexpr CodesWithoutThrees kWithoutThrees = make_codes();

// One row in the file's form.
void fill_row(const Fill& fill, uint64_t seed, uint8_t* out) {
    if (fill.read->holds == TensorRead::Holds::floats) return fill_floats(fill, seed, out);
    const size_t bytes = fill.read->row_bytes;
    random_bytes(out, bytes, seed, fill.keep, fill.set);
    if (fill.read->holds == TensorRead::Holds::ternary) {
        for (size_t i = 0; i < bytes; ++i) out[i] = kWithoutThrees.of[out[i]];
    }
    if (fill.read->type != FileType::i8) return;
    for (size_t i = 0; i < bytes; ++i) out[i] = out[i] == 0x80 ? 0x81 : out[i];  // as conversion: never -128
}

struct Piece {
    const Fill* fill;
    int row, rows;
};

std::vector<Piece> cut(const std::vector<Fill>& fills, int block, uint64_t all_bytes) {
    // Never more pieces than the pool takes tasks.
    const uint64_t least = all_bytes / (Pool::kMaxTasks / 2);
    std::vector<Piece> pieces;
    for (const Fill& fill : fills) {
        const uint64_t wanted = std::max<uint64_t>(kPieceBytes, least) / std::max<size_t>(fill.read->row_bytes, 1);
        const auto blocks = static_cast<int>(std::clamp<uint64_t>(wanted / static_cast<uint64_t>(block), 1, kMaxVocab));
        const int step = fill.read->holds == TensorRead::Holds::floats ? 1 : blocks * block;
        for (int row = 0; row < fill.read->rows; row += step) {
            pieces.push_back({&fill, row, std::min(step, fill.read->rows - row)});
        }
    }
    return pieces;
}

Status fill_model(const Model& model, const std::vector<TensorRead>& reads, const RandomOptions& options, Pool& pool) {
    const std::vector<Fill> fills = choose_fills(reads);
    const std::vector<Piece> pieces = cut(fills, model.kernels->sign_row_block, model.arena.bytes());
    size_t largest = 0;
    for (const Piece& piece : pieces) {
        largest = std::max(largest, static_cast<size_t>(piece.rows) * piece.fill->read->row_bytes);
    }
    const size_t stride = (largest + 63) / 64 * 64;
    std::vector<uint8_t> buffers(stride * static_cast<size_t>(pool.threads()));
    const auto cancelled = [&] { return options.cancel && options.cancel->load(std::memory_order_relaxed); };
    std::atomic<bool> misplaced{false};
    pool.run(static_cast<int>(pieces.size()), [&](int task, int thread) {
        if (cancelled()) return;
        const Piece& piece = pieces[static_cast<size_t>(task)];
        const TensorRead& read = *piece.fill->read;
        uint8_t* buffer = buffers.data() + stride * static_cast<size_t>(thread);
        for (int i = 0; i < piece.rows; ++i) {
            const auto row = static_cast<uint64_t>(piece.row + i);
            fill_row(*piece.fill, row_seed(options.seed, piece.fill->tensor, row),
                     buffer + static_cast<size_t>(i) * read.row_bytes);
        }
        const Status status = caught([&] {
            return read.place(*model.kernels, read, buffer, static_cast<size_t>(piece.row), static_cast<size_t>(piece.rows));
        });
        if (!status.ok()) misplaced.store(true);
    });
    if (cancelled()) return error("ERR_ABORTED", "Making random weights was cancelled.");
    if (misplaced.load()) return error("ERR_NOT_FINITE", "A random weight is not finite: this is a bug.");
    return {};
}

}  // namespace

Status random_model(const Config& config, const std::vector<NamedKind>& kinds, const RandomOptions& options, Pool& pool,
                    std::shared_ptr<Model>* out) {
    std::vector<TensorRead> reads;
    std::shared_ptr<Model> model;
    Status status = new_model(config, kinds, {}, options.activations, options.kernels, &reads, &model);
    if (!status.ok()) return status;
    const size_t needed = model->arena.used();
    if (options.memory_limit != 0 && needed > options.memory_limit) {
        return error("ERR_MEMORY_LIMIT", "The weights take " + std::to_string(needed) + " bytes, the limit is " +
                                             std::to_string(options.memory_limit) + ".");
    }
    if (status = check_available(needed, "This model"); !status.ok()) return status;
    if (status = place_tensors(model.get(), kinds, {}, &reads); !status.ok()) return status;
    if (status = fill_model(*model, reads, options, pool); !status.ok()) return status;
    *out = model;
    return {};
}

}  // namespace onebit
