#include "model/fill.h"

#include <algorithm>

namespace onebit {

namespace {

Status bad_table(const std::string& what) { return error("ERR_TENSOR_TABLE", what); }

}  // namespace

Status Filling::create(const Config& config, const std::vector<NamedKind>& kinds, Activations activations,
                       const KernelSet* kernels, std::unique_ptr<Filling>* out) {
    auto filling = std::make_unique<Filling>();
    std::vector<TensorRead> reads;
    Status status = new_model(config, kinds, {}, activations, kernels, &reads, &filling->model_);
    if (!status.ok()) return status;
    if (status = place_tensors(filling->model_.get(), kinds, {}, &reads); !status.ok()) return status;
    for (TensorRead& read : reads) filling->slots_.emplace(read.name, Slot{read});
    *out = std::move(filling);
    return {};
}

Status Filling::place(Slot& slot, const uint8_t* bytes, size_t rows) {
    Status status = slot.read.place(*model_->kernels, slot.read, bytes, slot.rows_done, rows);
    slot.rows_done += rows;
    return status;
}

Status Filling::write(const std::string& name, const uint8_t* bytes, size_t count) {
    if (!current_ || current_->read.name != name) {
        if (current_ && !current_->whole()) return bad_table("Tensor " + current_->read.name + " is not whole yet.");
        const auto found = slots_.find(name);
        if (found == slots_.end()) return bad_table("A model of this config has no tensor " + name + ".");
        if (found->second.whole()) return bad_table("Tensor " + name + " is there already.");
        current_ = &found->second;
    }
    Slot& slot = *current_;
    const TensorRead& read = slot.read;
    const size_t rows = static_cast<size_t>(read.rows);
    const size_t room = (rows - slot.rows_done) * read.row_bytes - rest_.size();
    if (count > room) return error("ERR_TENSOR_SIZE", "Tensor " + name + " has more bytes than " + std::to_string(read.file_bytes()) + ".");
    // What can be placed by itself: whole blocks of rows, and the last rows.
    const size_t block = static_cast<size_t>(model_->kernels->sign_row_block) * read.row_bytes;
    if (!rest_.empty()) {
        const size_t wanted = std::min({block - rest_.size(), count});
        rest_.insert(rest_.end(), bytes, bytes + wanted);
        bytes += wanted;
        count -= wanted;
        const bool ends = slot.rows_done * read.row_bytes + rest_.size() == read.file_bytes();
        if (rest_.size() < block && !ends) return {};
        if (Status status = place(slot, rest_.data(), rest_.size() / read.row_bytes); !status.ok()) return status;
        rest_.clear();
    }
    const bool ends = slot.rows_done * read.row_bytes + count == read.file_bytes();
    const size_t now = ends ? count : count / block * block;
    rest_.assign(bytes + now, bytes + count);
    return now > 0 ? place(slot, bytes, now / read.row_bytes) : Status{};
}

Status Filling::finish(std::shared_ptr<Model>* out) {
    for (const auto& [name, slot] : slots_) {
        if (!slot.whole()) return bad_table("Tensor " + name + " is missing or not whole.");
    }
    *out = std::move(model_);
    return {};
}

}  // namespace onebit
