#include "run/stage.h"

#include <algorithm>

namespace onebit {

namespace {

// Rows of a dense matrix come in units of this many, which every kernel's row blocking divides.
constexpr int kDenseRowUnit = 16;

Stage bare_stage(const Linear& linear, int index) {
    const SignMatrix* sign = linear.sign;
    switch (linear.kind.form) {
        case LinearKind::Form::dense: return {linear.rows, linear.cols, nullptr, linear.h, linear.dense};
        case LinearKind::Form::grouped: return {linear.rows, linear.cols, nullptr, nullptr, sign[0].bits};
        case LinearKind::Form::sign: break;
    }
    const int rank = linear.kind.rank;
    if (rank == 0) return {linear.rows, linear.cols, linear.g, linear.h, sign[0].bits};
    if (index == 0) return {rank, linear.cols, linear.g, nullptr, sign[0].bits};
    return {linear.rows, rank, linear.mid, linear.h, sign[1].bits};
}

}  // namespace

bool rounds_activations(const Model& model, const Linear& linear) {
    if (model.activations == Activations::f32) return false;
    return linear.kind.form != LinearKind::Form::dense || linear.kind.dtype == DType::q8;
}

bool reads_tables(const Model& model, const Linear& linear) {
    return model.activations != Activations::f32 && linear.kind.form != LinearKind::Form::dense;
}

int stage_count(const Linear& linear) { return linear.kind.form == LinearKind::Form::sign && linear.kind.rank > 0 ? 2 : 1; }

Stage stage_of(const Model& model, const Linear& linear, int index) {
    Stage stage = bare_stage(linear, index);
    stage.row_unit = kDenseRowUnit;
    if (linear.kind.form == LinearKind::Form::dense) {
        stage.row_bytes = static_cast<size_t>(padded(stage.cols, 64)) * element_bytes(linear.kind.dtype);
    } else if (reads_tables(model, linear)) {
        stage.row_unit = model.kernels->sign_row_block;
        stage.row_bytes = model.kernels->sign_block_bytes(stage.cols) / static_cast<size_t>(stage.row_unit);
    } else {
        stage.row_bytes = static_cast<size_t>(padded(stage.cols, 16) / 8);
    }
    return stage;
}

void RowSplit::add(const Stage& stage) {
    stages_[count_] = stage;
    begin_[count_ + 1] = begin_[count_] + static_cast<uint64_t>(padded(stage.rows, stage.row_unit)) * stage.row_bytes;
    ++count_;
}

int RowSplit::row_at(int i, int share, int shares) const {
    const uint64_t at = bytes() * static_cast<uint64_t>(share) / static_cast<uint64_t>(shares);
    if (at <= begin_[i]) return 0;
    const Stage& stage = stages_[i];
    const uint64_t unit_bytes = static_cast<uint64_t>(stage.row_unit) * stage.row_bytes;
    const uint64_t row = (at - begin_[i] + unit_bytes / 2) / unit_bytes * static_cast<uint64_t>(stage.row_unit);
    return static_cast<int>(std::min(row, static_cast<uint64_t>(stage.rows)));
}

}  // namespace onebit
