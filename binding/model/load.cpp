// Loading: the file is read (never mapped), every tensor's checksum is compared, and the numbers are put where and how
// the kernels want them, tensors in parallel.
#include <algorithm>
#include <bit>
#include <memory>
#include <mutex>

#include "model/bind.h"
#include "system/file.h"

namespace onebit {

namespace {

// Pieces this large keep a disk busy and a thread's second-level cache warm.
constexpr size_t kPieceBytes = size_t{1} << 20;

class Loader final : public Task {
public:
    Loader(const File& file, const Model& model, const LoadOptions& options, const std::vector<TensorRead>& reads)
        : file_(file), model_(model), options_(options), reads_(reads) {}

    Status load(Pool& pool) {
        size_t largest = 0;
        for (const TensorRead& read : reads_) largest = std::max(largest, rows_of_piece(read) * read.row_bytes);
        stride_ = (largest + 63) / 64 * 64;
        pieces_.resize(stride_ * static_cast<size_t>(pool.threads()));
        pool.run(static_cast<int>(reads_.size()), *this);
        return std::move(first_error_);
    }

    void run(int task, int thread) override {
        if (failed_.load(std::memory_order_relaxed)) return;
        Status status = caught([&] {
            return load_tensor(reads_[static_cast<size_t>(task)], pieces_.data() + stride_ * static_cast<size_t>(thread));
        });
        if (status.ok()) return;
        std::lock_guard lock(mutex_);
        if (!failed_.exchange(true)) first_error_ = std::move(status);
    }

private:
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
            if (options_.cancel && options_.cancel->load(std::memory_order_relaxed)) {
                return error("ERR_ABORTED", "Loading was cancelled.");
            }
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

    void report(size_t bytes) {
        const uint64_t done = done_bytes_.fetch_add(bytes) + bytes;
        if (!options_.progress) return;
        std::lock_guard lock(mutex_);
        options_.progress(done);
    }

    const File& file_;
    const Model& model_;
    const LoadOptions& options_;
    const std::vector<TensorRead>& reads_;
    std::vector<uint8_t> pieces_;  // (threads, stride)
    size_t stride_ = 0;
    std::mutex mutex_;
    std::atomic<bool> failed_{false};
    std::atomic<uint64_t> done_bytes_{0};
    Status first_error_;
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
    if (status = loader.load(pool); !status.ok()) return status;
    *out = model;
    return {};
}

}  // namespace onebit
