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

class Loader {
public:
    Loader(const File& file, const Model& model, const LoadOptions& options, const std::vector<TensorRead>& reads,
           const std::vector<TensorSlot>& slots)
        : file_(file), model_(model), options_(options), reads_(reads), slots_(slots) {}

    Status run(Pool& pool) {
        pool.run(static_cast<int>(reads_.size()), [this](int index) { load_tensor(static_cast<size_t>(index)); });
        return std::move(first_error_);
    }

private:
    void load_tensor(size_t index) {
        if (failed_.load(std::memory_order_relaxed)) return;
        const TensorRead& read = reads_[index];
        const TensorSlot& slot = slots_[index];
        const size_t row_bytes = read.row_bytes();
        const auto block = static_cast<size_t>(model_.kernels->sign_row_block);
        const size_t wanted_rows = std::max(kPieceBytes / std::max(row_bytes, size_t{1}) / block, size_t{1}) * block;
        const auto rows_per_piece = std::min(wanted_rows, static_cast<size_t>(read.rows));
        const std::unique_ptr<uint8_t[]> piece(new uint8_t[rows_per_piece * row_bytes]);
        uint32_t crc = 0;
        for (size_t row = 0; row < static_cast<size_t>(read.rows); row += rows_per_piece) {
            if (options_.cancel && options_.cancel->load(std::memory_order_relaxed)) {
                return fail(error("ERR_ABORTED", "Loading was cancelled."));
            }
            const size_t n = std::min(rows_per_piece, static_cast<size_t>(read.rows) - row);
            if (Status status = file_.read_at(slot.offset + row * row_bytes, piece.get(), n * row_bytes); !status.ok()) {
                return fail(std::move(status));
            }
            crc = model_.kernels->crc32c(crc, piece.get(), n * row_bytes);
            if (Status status = place_rows(*model_.kernels, read, piece.get(), row, n); !status.ok()) {
                return fail(std::move(status));
            }
            report(n * row_bytes);
        }
        if (crc != slot.crc32c) {
            fail(error("ERR_CHECKSUM", "The bytes of tensor " + read.name +
                                           " do not match their checksum: the file is damaged; copy or make it again."));
        }
    }

    void report(size_t bytes) {
        const uint64_t done = done_bytes_.fetch_add(bytes) + bytes;
        if (!options_.progress) return;
        std::lock_guard lock(mutex_);
        options_.progress(done);
    }

    void fail(Status status) {
        std::lock_guard lock(mutex_);
        if (!failed_.exchange(true)) first_error_ = std::move(status);
    }

    const File& file_;
    const Model& model_;
    const LoadOptions& options_;
    const std::vector<TensorRead>& reads_;
    const std::vector<TensorSlot>& slots_;
    std::mutex mutex_;
    std::atomic<bool> failed_{false};
    std::atomic<uint64_t> done_bytes_{0};
    Status first_error_;
};

Status check_slots(const std::vector<TensorRead>& reads, const std::vector<TensorSlot>& slots, uint64_t file_bytes) {
    if (reads.size() != slots.size()) {
        return error("ERR_TENSOR_TABLE", "The config implies " + std::to_string(reads.size()) + " tensors, " +
                                             std::to_string(slots.size()) + " were given.");
    }
    for (size_t i = 0; i < slots.size(); ++i) {
        const TensorSlot& slot = slots[i];
        if (slot.bytes != reads[i].file_bytes() || slot.bytes > file_bytes || slot.offset > file_bytes - slot.bytes) {
            return error("ERR_TENSOR_TABLE", "Tensor " + reads[i].name + " should have " +
                                                 std::to_string(reads[i].file_bytes()) + " bytes inside the file, not " +
                                                 std::to_string(slot.bytes) + " at offset " + std::to_string(slot.offset) + ".");
        }
    }
    return {};
}

}  // namespace

Status load_model(const Config& config, const std::vector<TensorSlot>& slots, const LoadOptions& options, Pool& pool,
                  std::shared_ptr<Model>* out) {
    static_assert(std::endian::native == std::endian::little, "the file's numbers are little-endian");
    if (Status status = check_config(config); !status.ok()) return status;
    std::vector<TensorRead> reads;
    const auto model = new_model(config, options.activations, options.kernels, &reads);
    if (Status status = check_slots(reads, slots, options.file_bytes); !status.ok()) return status;

    File file;
    if (Status status = file.open(options.path); !status.ok()) return status;
    if (file.size() != options.file_bytes) {
        return error("ERR_FILE_SIZE", "The file has " + std::to_string(file.size()) + " bytes, its header describes " +
                                          std::to_string(options.file_bytes) + ".");
    }
    if (Status status = place_tensors(model.get(), &reads); !status.ok()) return status;
    Loader loader(file, *model, options, reads, slots);
    if (Status status = loader.run(pool); !status.ok()) return status;
    *out = model;
    return {};
}

}  // namespace onebit
