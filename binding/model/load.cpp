// Loading: the file is read (never mapped), every tensor's checksum is compared, and the numbers are put where and how
// the kernels want them, tensors in parallel.
#include <algorithm>
#include <bit>
#include <memory>

#include "model/bind.h"
#include "model/loading.h"
#include "system/file.h"

namespace onebit {

namespace {

// Pieces this large keep a disk busy and a thread's second-level cache warm.
constexpr size_t kPieceBytes = size_t{1} << 20;

class Loader final : public Loading {
public:
    Loader(const File& file, const Model& model, const LoadOptions& options, const std::vector<TensorRead>& reads)
        : Loading(options.cancel, options.progress), file_(file), model_(model), reads_(reads) {}

    Status load_all(Pool& pool) {
        size_t largest = 0;
        for (const TensorRead& read : reads_) largest = std::max(largest, rows_of_piece(read) * read.row_bytes);
        stride_ = (largest + 63) / 64 * 64;
        pieces_.resize(stride_ * static_cast<size_t>(pool.threads()));
        pool.run(static_cast<int>(reads_.size()), *this);
        return outcome();
    }

private:
    Status load(size_t task, size_t thread) override { return load_tensor(reads_[task], pieces_.data() + stride_ * thread); }

    // Whole blocks of rows, which can be placed by themselves.
    size_t rows_of_piece(const TensorRead& read) const {
        const auto block = static_cast<size_t>(model_.kernels->sign_row_block);
        const size_t wanted = std::max(kPieceBytes / std::max(read.row_bytes, size_t{1}) / block, size_t{1}) * block;
        return std::min(wanted, static_cast<size_t>(read.rows));
    }

    Status load_tensor(const TensorRead& read, uint8_t* piece) {
        const size_t step = rows_of_piece(read), rows = static_cast<size_t>(read.rows);
        uint32_t crc = 0;
        for (size_t row = 0; row < rows; row += step) {
            if (Status status = goes_on(); !status.ok()) return status;
            const size_t n = std::min(step, rows - row), bytes = n * read.row_bytes;
            if (Status status = file_.read_at(read.offset + row * read.row_bytes, piece, bytes); !status.ok()) return status;
            crc = model_.kernels->crc32c(crc, piece, bytes);
            if (Status status = read.place(*model_.kernels, read, piece, row, n); !status.ok()) return status;
            report(bytes);
        }
        if (crc == read.crc32c) return {};
        return error("ERR_CHECKSUM", "The bytes of tensor " + read.name +
                                         " do not match their checksum: the file is damaged; copy or make it again.");
    }

    const File& file_;
    const Model& model_;
    const std::vector<TensorRead>& reads_;
    std::vector<uint8_t> pieces_;  // (threads, stride)
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
