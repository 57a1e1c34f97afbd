// Numbers of other formats on their way from files into a model's memory: read, converted and placed in pieces, which all
// threads share.
#include <algorithm>
#include <cmath>

#include "model/fill.h"
#include "model/loading.h"
#include "system/file.h"

namespace onebit {

namespace {

// As floats a piece stays in a second-level cache; as bytes of a file it is still worth a call to read it.
constexpr size_t kPieceElements = size_t{1} << 16;
constexpr size_t kMostPieces = size_t{1} << 19;  // below Pool::kMaxTasks

Status bad_table(const std::string& what) { return error("ERR_TENSOR_TABLE", what); }

}  // namespace

class Filling::Converter final : public Loading {
public:
    Converter(const KernelSet& kernels, const std::vector<Target>& targets, const StoredOptions& options)
        : Loading(options.cancel, options.progress), kernels_(kernels), targets_(targets), paths_(options.paths), files_(options.paths.size()) {}

    Status convert(Pool& pool) {
        for (size_t i = 0; i < files_.size(); ++i) {
            if (Status status = files_[i].open(paths_[i]); !status.ok()) return status;
        }
        cut();
        buffers_.resize(static_cast<size_t>(pool.threads()));
        pool.run(static_cast<int>(pieces_.size()), *this);
        return outcome();
    }

private:
    Status load(size_t task, size_t thread) override { return convert_piece(pieces_[task], buffers_[thread]); }

    struct Piece {
        const Target* target;
        size_t row, rows;
    };

    // A thread's own.
    struct Buffers {
        std::vector<uint8_t> stored, placed;
        std::vector<float> floats, scales;
    };

    // Into whole blocks of rows, which can be placed by themselves.
    void cut() {
        size_t elements = 0;
        for (const Target& target : targets_) elements += target.elements;
        const size_t wanted = std::max(kPieceElements, elements / kMostPieces);
        for (const Target& target : targets_) {
            const size_t rows = target.elements / target.cols;
            const size_t block = target.rows->read.holds == TensorRead::Holds::signs ? static_cast<size_t>(kernels_.sign_row_block) : 1;
            const size_t step = std::max(wanted / target.cols / block, size_t{1}) * block;
            for (size_t row = 0; row < rows; row += step) pieces_.push_back({&target, row, std::min(step, rows - row)});
        }
    }

    Status convert_piece(const Piece& piece, Buffers& buffers) {
        if (Status status = goes_on(); !status.ok()) return status;
        const Target& target = *piece.target;
        const StoredTensor& stored = *target.stored;
        const size_t row_bytes = target.cols / block_elements(stored.type) * block_bytes(stored.type);
        buffers.stored.resize(piece.rows * row_bytes);
        const uint64_t offset = stored.offset + piece.row * row_bytes;
        if (Status status = files_[stored.file].read_at(offset, buffers.stored.data(), buffers.stored.size()); !status.ok()) return status;
        Status status = place_piece(piece, buffers);
        if (!status.ok()) {
            const std::string where = "Tensor " + stored.label + ", counted from row " + std::to_string(piece.row) + ": ";
            return error(status.code, where + status.message);
        }
        const size_t scale_bytes = target.scales ? target.scales->read.file_bytes() / (target.elements / target.cols) * piece.rows : 0;
        report(piece.rows * target.cols * placed_bits(target) / 8 + scale_bytes);
        return {};
    }

    static bool in_groups(const Target& target) {
        const auto holds = target.rows->read.holds;
        return holds == TensorRead::Holds::signs || holds == TensorRead::Holds::ternary;
    }

    static size_t placed_bits(const Target& target) {
        if (in_groups(target)) return target.rows->read.holds == TensorRead::Holds::signs ? 1 : 2;
        return target.rows->read.file_bytes() * 8 / target.elements;
    }

    Status place_piece(const Piece& piece, Buffers& buffers) {
        const Target& target = *piece.target;
        const TensorRead& read = target.rows->read;
        const uint8_t* stored = buffers.stored.data();
        if (in_groups(target)) return place_groups(piece, buffers);
        const size_t elements = piece.rows * target.cols;
        buffers.floats.resize(elements);
        float* floats = buffers.floats.data();
        if (read.type == FileType::f32) {
            Status status = rows_to_f32(target.stored->type, stored, piece.rows, target.cols, floats);
            return status.ok() ? read.place(kernels_, read, reinterpret_cast<const uint8_t*>(floats), piece.row, piece.rows) : status;
        }
        decode_rows(target.stored->type, stored, piece.rows, target.cols, floats);
        if (read.type == FileType::i8) return place_q8(piece, floats);
        buffers.placed.resize(piece.rows * read.row_bytes);
        uint8_t* placed = buffers.placed.data();
        Status status = read.type == FileType::f16 ? rows_to_f16(floats, piece.rows, target.cols, placed)
                                                   : rows_to_bf16(floats, piece.rows, target.cols, placed);
        return status.ok() ? read.place(kernels_, read, placed, piece.row, piece.rows) : status;
    }

    // Rows of integers need no other form, so the kernels round them to where they belong, with the zeros behind them. What
    // rows_to_q8 does in another way, rows that are nearly zero and those that are no numbers, is left to it.
    Status place_q8(const Piece& piece, const float* floats) {
        const TensorRead& read = piece.target->rows->read;
        // The scales are one row: each piece has its own part of it.
        float* scales = static_cast<float*>(piece.target->scales->read.destination) + piece.row;
        const size_t cols = piece.target->cols;
        for (size_t r = 0; r < piece.rows; ++r) {
            auto* out = static_cast<int8_t*>(read.destination) + (piece.row + r) * read.stride;
            scales[r] = kernels_.quantize(out, floats + r * cols, nullptr, static_cast<int>(cols));
            if (!std::isfinite(scales[r])) return which_is_no_number(floats, piece.rows, cols);
            if (scales[r] == 0) {
                if (Status status = rows_to_q8(floats + r * cols, 1, cols, out, scales + r); !status.ok()) return status;
            }
        }
        return {};
    }

    static Status which_is_no_number(const float* floats, size_t rows, size_t cols) {
        std::vector<int8_t> ints(rows * cols);
        std::vector<float> scales(rows);
        return rows_to_q8(floats, rows, cols, ints.data(), scales.data());
    }

    Status place_groups(const Piece& piece, Buffers& buffers) {
        const TensorRead &bits = piece.target->rows->read, &scales = piece.target->scales->read;
        buffers.placed.resize(piece.rows * (bits.row_bytes + scales.row_bytes));
        uint8_t *out = buffers.placed.data(), *scale = out + piece.rows * bits.row_bytes;
        const uint8_t* stored = buffers.stored.data();
        const size_t cols = piece.target->cols;
        Status status = bits.holds == TensorRead::Holds::signs ? split_q1_0(stored, piece.rows, cols, out, scale)
                                                               : split_ternary(piece.target->stored->type, stored, piece.rows, cols, out, scale);
        if (!status.ok()) return status;
        if (status = bits.place(kernels_, bits, out, piece.row, piece.rows); !status.ok()) return status;
        return scales.place(kernels_, scales, scale, piece.row, piece.rows);
    }

    const KernelSet& kernels_;
    const std::vector<Target>& targets_;
    const std::vector<std::string>& paths_;
    std::vector<File> files_;
    std::vector<Piece> pieces_;
    std::vector<Buffers> buffers_;  // by thread
};

Filling::Slot* Filling::slot_of(const std::string& name) {
    const auto found = slots_.find(name);
    return found == slots_.end() ? nullptr : &found->second;
}

// A vector has its own name; a matrix has several tensors, by which its kind can be told.
Status Filling::target_of(const StoredTensor& stored, Target* out) {
    using Holds = TensorRead::Holds;
    const std::string& name = stored.name;
    Slot *rows = slot_of(name), *scales = nullptr;
    size_t cols = 0;
    if (!rows && (rows = slot_of(name + ".weight"))) {
        if (rows->read.type == FileType::i8) scales = slot_of(name + ".scale");
    } else if (!rows) {
        const bool signs = stored.type == SourceType::q1_0 && !slot_of(name + ".g");
        rows = signs ? slot_of(name + ".sign") : is_ternary(stored.type) ? slot_of(name + ".codes") : nullptr;
        scales = slot_of(name + ".scale");
        // The groups of the model are the blocks of the source.
        const bool fits = rows && scales && scales->read.holds == Holds::group_scales &&
                          static_cast<size_t>(scales->read.cols) * block_elements(stored.type) == static_cast<size_t>(rows->read.cols);
        if (!fits) rows = nullptr;
    }
    if (rows) cols = static_cast<size_t>(rows->read.cols);
    const bool needs_scales = rows && rows->read.type == FileType::i8;
    if (!rows || (needs_scales && !scales) || cols % block_elements(stored.type) != 0) {
        return bad_table("Nothing of a model of this config can be made of tensor " + stored.label + " for " + name + ".");
    }
    for (Slot* slot : {rows, scales}) {
        if (!slot) continue;
        if (slot->rows_done > 0) return bad_table("Tensor " + slot->read.name + " is there already.");
        slot->rows_done = static_cast<size_t>(slot->read.rows);
    }
    *out = {&stored, rows, scales, static_cast<size_t>(rows->read.rows) * cols, cols};
    return {};
}

Status Filling::convert(const std::vector<StoredTensor>& tensors, const StoredOptions& options, Pool& pool) {
    if (current_ && !current_->whole()) return bad_table("Tensor " + current_->read.name + " is not whole yet.");
    std::vector<Target> targets(tensors.size());
    for (size_t i = 0; i < tensors.size(); ++i) {
        if (tensors[i].file >= options.paths.size()) return bad_table("Tensor " + tensors[i].label + " is in no file.");
        if (Status status = target_of(tensors[i], &targets[i]); !status.ok()) return status;
    }
    Converter converter(*model_->kernels, targets, options);
    return converter.convert(pool);
}

}  // namespace onebit
