#include "model/bind.h"

namespace onebit {

namespace {

class Binder {
public:
    Binder(Model* model, std::vector<TensorRead>* reads) : model_(*model), reads_(*reads) {}

    const float* floats(const std::string& name, int n) {
        return static_cast<const float*>(
            add(name, TensorRead::Form::floats, 1, n, static_cast<size_t>(padded(n, 16)) * sizeof(float)));
    }

    Linear matrix(const std::string& name, const LinearKind& kind, int rows, int cols) {
        Linear linear;
        linear.kind = kind;
        linear.rows = rows;
        linear.cols = cols;
        switch (kind.form) {
            case LinearKind::Form::dense: dense(name, &linear); break;
            case LinearKind::Form::grouped: grouped(name, &linear); break;
            case LinearKind::Form::sign: chain(name, &linear); break;
        }
        if (kind.bias) linear.bias = floats(name + ".bias", rows);
        return linear;
    }

private:
    void* add(const std::string& name, TensorRead::Form form, int rows, int cols, size_t arena_bytes,
              size_t element_bytes = 4) {
        void* place = model_.arena.take(arena_bytes);
        reads_.push_back({name, form, rows, cols, element_bytes, place, DType::f32});
        return place;
    }

    bool integer_mode() const { return model_.activations != Activations::f32; }

    SignMatrix signs(const std::string& name, int rows, int cols) {
        const KernelSet& kernels = *model_.kernels;
        SignMatrix matrix{rows, cols, nullptr};
        void* place;
        if (integer_mode()) {
            const auto blocks = static_cast<size_t>(padded(rows, kernels.sign_row_block) / kernels.sign_row_block);
            place = add(name, TensorRead::Form::sign_blocks, rows, cols, blocks * kernels.sign_block_bytes(cols));
        } else {
            const auto row_bytes = static_cast<size_t>(padded(cols, 16) / 8);
            place = add(name, TensorRead::Form::sign_rows, rows, cols, static_cast<size_t>(rows) * row_bytes);
        }
        matrix.bits = static_cast<const uint8_t*>(place);
        return matrix;
    }

    void dense(const std::string& name, Linear* linear) {
        const size_t element = element_bytes(linear->kind.dtype);
        linear->dense = add(name + ".weight", TensorRead::Form::dense_rows, linear->rows, linear->cols,
                            static_cast<size_t>(linear->rows) * static_cast<size_t>(padded(linear->cols, 64)) * element,
                            element);
        reads_.back().dtype = linear->kind.dtype;
        if (linear->kind.dtype == DType::q8) linear->h = floats(name + ".scale", linear->rows);
    }

    void grouped(const std::string& name, Linear* linear) {
        const int groups = linear->cols / 128;
        linear->sign[0] = signs(name + ".sign", linear->rows, linear->cols);
        const auto form = integer_mode() ? TensorRead::Form::group_scale_blocks : TensorRead::Form::group_scale_rows;
        const int64_t rows = integer_mode() ? padded(linear->rows, model_.kernels->sign_row_block) : linear->rows;
        linear->scales = static_cast<const uint16_t*>(
            add(name + ".scale", form, linear->rows, groups, static_cast<size_t>(rows) * static_cast<size_t>(groups) * 2));
    }

    void chain(const std::string& name, Linear* linear) {
        const int rank = linear->kind.rank;
        linear->g = floats(name + ".g", linear->cols);
        if (rank == 0) {
            linear->sign[0] = signs(name + ".sign", linear->rows, linear->cols);
        } else {
            linear->sign[0] = signs(name + ".sign1", rank, linear->cols);
            if (linear->kind.mid_scale) linear->mid = floats(name + ".mid", rank);
            linear->sign[1] = signs(name + ".sign2", linear->rows, rank);
        }
        linear->h = floats(name + ".h", linear->rows);
    }

    Model& model_;
    std::vector<TensorRead>& reads_;
};

}  // namespace

size_t TensorRead::row_bytes() const {
    const auto n = static_cast<size_t>(cols);
    switch (form) {
        case Form::floats: return n * 4;
        case Form::sign_blocks:
        case Form::sign_rows: return n / 8;
        case Form::group_scale_blocks:
        case Form::group_scale_rows: return n * 2;
        case Form::dense_rows: return n * element_bytes;
    }
    return 0;
}

void bind_tensors(Model* model, std::vector<TensorRead>* reads) {
    Binder bind(model, reads);
    const Config& config = model->config;
    model->embedding = bind.matrix("tok_embeddings", config.embedding, config.vocab_size, config.dim);
    model->layers.assign(static_cast<size_t>(config.n_layers), Layer{});
    for (size_t l = 0; l < model->layers.size(); ++l) {
        Layer& layer = model->layers[l];
        const std::string prefix = "layers." + std::to_string(l) + ".";
        const auto linear = [&](Role role, const char* name) {
            const auto r = static_cast<size_t>(role);
            layer.linear[r] = bind.matrix(prefix + name, config.linears[l * kRoles + r], config.rows(role), config.cols(role));
        };
        layer.attention_norm = bind.floats(prefix + "attention_norm", config.dim);
        linear(Role::wq, "wq");
        linear(Role::wk, "wk");
        linear(Role::wv, "wv");
        if (config.qk_norm) {
            layer.q_norm = bind.floats(prefix + "q_norm", config.head_dim);
            layer.k_norm = bind.floats(prefix + "k_norm", config.head_dim);
        }
        linear(Role::wo, "wo");
        layer.ffn_norm = bind.floats(prefix + "ffn_norm", config.dim);
        linear(Role::w1, "w1");
        linear(Role::w2, "w2");
        linear(Role::w3, "w3");
    }
    model->norm = bind.floats("norm", config.dim);
    model->head = config.tied_head ? model->embedding : bind.matrix("output", config.head, config.vocab_size, config.dim);
}

std::shared_ptr<Model> new_model(const Config& config, Activations activations, const KernelSet* kernels,
                                 std::vector<TensorRead>* reads) {
    auto model = std::make_shared<Model>();
    model->config = config;
    model->activations = activations;
    model->kernels = kernels;
    model->rope = make_rope_table(config.rope, config.head_dim);
    bind_tensors(model.get(), reads);
    return model;
}

Status place_tensors(Model* model, std::vector<TensorRead>* reads) {
    const size_t needed = model->arena.used();
    if (!model->arena.reserve(needed)) {
        return error("ERR_OUT_OF_MEMORY", "The system has no " + std::to_string(needed >> 20) + " MiB for the weights.");
    }
    reads->clear();
    bind_tensors(model, reads);
    return {};
}

}  // namespace onebit
