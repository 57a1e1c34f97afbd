// Loading: the file is read (never mapped), every tensor's checksum is compared, and the numbers are put where and how
// the kernels want them, in pieces that all threads share.
#include <algorithm>
#include <bit>
#include <memory>

#include "model/bind.h"
#include "model/loading.h"
#include "system/checksum.h"
#include "system/file.h"

namespace onebit {

namespace {

// Pieces this large keep a disk busy and a thread's second-level cache warm.
constexpr uint64_t kPieceBytes = 1 << 20;
constexpr uint64_t kMostPieces = 1 << 18;  // of the size wanted; rounded to blocks there may be twice as many: below Pool::kMaxTasks

class Loader final : public Loading {
public:
    Loader(const File& file, const Model& model, const LoadOptions& options, const std::vector<TensorRead>& reads)
        : Loading(options.cancel, options.progress), file_(file), model_(model), reads_(reads) {}

    Status load_all(Pool& pool) {
        cut();
        buffers_.resize(stride_ * static_cast<size_t>(pool.threads()));
        pool.run(static_cast<int>(pieces_.size()), *this);
        if (Status status = outcome(); !status.ok()) return status;
        return compare_checksums();
    }

private:
    struct Piece {
        const TensorRead* read;
        size_t row, rows;
        uint32_t crc = 0;
        size_t bytes() const { return rows * read->row_bytes; }
    };

    // Into whole blocks of rows, which can be placed by themselves: a table of 600 MB must not keep one thread busy while
    // the others have nothing left.
    void cut() {
        uint64_t all = 0;
        for (const TensorRead& read : reads_) all += read.file_bytes();
        const uint64_t wanted = std::max(kPieceBytes, all / kMostPieces);
        const auto block = static_cast<size_t>(model_.kernels->sign_row_block);
        size_t largest = 0;
        for (const TensorRead& read : reads_) {
            const auto rows = static_cast<size_t>(read.rows);
            const size_t step = std::max(static_cast<size_t>(wanted) / std::max(read.row_bytes, size_t{1}) / block, size_t{1}) * block;
            for (size_t row = 0; row < rows; row += step) {
                pieces_.push_back({&read, row, std::min(step, rows - row)});
                largest = std::max(largest, pieces_.back().bytes());
            }
        }
        stride_ = (largest + 63) / 64 * 64;
    }

    Status load(size_t task, size_t thread) override {
        if (Status status = goes_on(); !status.ok()) return status;
        Piece& piece = pieces_[task];
        const TensorRead& read = *piece.read;
        uint8_t* buffer = buffers_.data() + stride_ * thread;
        const size_t bytes = piece.bytes();
        if (Status status = file_.read_at(read.offset + piece.row * read.row_bytes, buffer, bytes); !status.ok()) return status;
        piece.crc = model_.kernels->crc32c(0, buffer, bytes);
        if (Status status = read.place(*model_.kernels, read, buffer, piece.row, piece.rows); !status.ok()) return status;
        report(bytes);
        return {};
    }

    Status compare_checksums() const {
        for (auto piece = pieces_.begin(); piece != pieces_.end();) {
            const TensorRead* read = piece->read;
            JoinedCrc32c found;
            for (; piece != pieces_.end() && piece->read == read; ++piece) found.append(piece->crc, piece->bytes());
            if (found.value() == read->crc32c) continue;
            return error("ERR_CHECKSUM", "The bytes of tensor " + read->name +
                                             " do not match their checksum: the file is damaged; copy or make it again.");
        }
        return {};
    }

    const File& file_;
    const Model& model_;
    const std::vector<TensorRead>& reads_;
    std::vector<Piece> pieces_;
    std::vector<uint8_t> buffers_;  // (threads, stride)
    size_t stride_ = 0;
};

}  // namespace

Status load_model(const Config& config, const Contents& contents, const LoadOptions& options, Pool& pool,
                  std::shared_ptr<Model>* out) {
    static_assert(std::endian::native == std::endian::little, "the file's numbers are little-endian");
    std::vector<TensorRead> reads;
    std::shared_ptr<Model> model;
    const TensorsOfFile tensors{&contents.tensors, options.file_bytes};
    Status status = new_model(config, contents.kinds, tensors, options.activations, options.kernels, &reads, &model);
    if (!status.ok()) return status;
    File file;
    if (status = file.open(options.path); !status.ok()) return status;
    if (file.size() != options.file_bytes) {
        return error("ERR_FILE_SIZE", "The file has " + std::to_string(file.size()) + " bytes, its header describes " +
                                          std::to_string(options.file_bytes) + ".");
    }
    if (status = place_tensors(model.get(), contents.kinds, tensors, &reads); !status.ok()) return status;
    Loader loader(file, *model, options, reads);
    if (status = loader.load_all(pool); !status.ok()) return status;
    *out = model;
    return {};
}

}  // namespace onebit
