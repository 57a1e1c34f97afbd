#include "model/bind.h"

#include <unordered_map>

namespace onebit {

namespace {

Status bad_table(const std::string& what) { return error("ERR_TENSOR_TABLE", what); }

constexpr FileType kFileTypes[] = {FileType::f32, FileType::f16, FileType::bf16, FileType::i8};  // by DType

// Takes tensors and kinds by name. A model that no file holds has nothing to compare with: every tensor is there.
class Binder final : public Tensors {
public:
    Binder(Model* model, const std::vector<NamedKind>& kinds, TensorsOfFile file, std::vector<TensorRead>* reads)
        : Tensors(*model->kernels, model->activations), model_(*model), file_(file), reads_(*reads) {
        for (const NamedKind& named : kinds) {
            if (!kinds_.emplace(named.name, &named.kind).second) fail(bad_table("The kind of " + named.name + " is there twice."));
        }
        for (size_t i = 0; file.slots && i < file.slots->size(); ++i) {
            const TensorSlot& slot = (*file.slots)[i];
            if (!tensors_.emplace(slot.name, &slot).second) fail(bad_table("Tensor " + slot.name + " is there twice."));
        }
    }

    using Tensors::floats;
    const float* floats(const std::string& name, int n, bool half) override {
        const size_t bytes = static_cast<size_t>(n) * (half ? sizeof(uint16_t) : sizeof(float));
        const size_t stride = static_cast<size_t>(padded(n, 16)) * sizeof(float);
        return static_cast<const float*>(add(name, {Holds::floats, half ? place_widened : place_finite, 1, n,
                                                    half ? FileType::f16 : FileType::f32, bytes, stride}, 1));
    }

    const uint8_t* signs(const std::string& name, int rows, int cols, bool blocks) override {
        const size_t stride = blocks ? kernels.sign_block_bytes(cols) : static_cast<size_t>(padded(cols, 16) / 8);
        return static_cast<const uint8_t*>(add(name, {Holds::signs, blocks ? place_sign_blocks : place_copied, rows, cols, FileType::u8,
                                                      static_cast<size_t>(cols) / 8, stride},
                                               blocks ? padded(rows, kernels.sign_row_block) / kernels.sign_row_block : rows));
    }

    const uint16_t* group_scales(const std::string& name, int rows, int groups, int block_rows) override {
        const size_t bytes = static_cast<size_t>(groups) * 2;
        return static_cast<const uint16_t*>(add(name, {Holds::group_scales, place_scales, rows, groups, FileType::f16, bytes, bytes,
                                                       block_rows},
                                                padded(rows, block_rows)));
    }

    const uint8_t* ternary(const std::string& name, int rows, int cols, bool blocks) override {
        return static_cast<const uint8_t*>(add(name, {Holds::ternary, blocks ? place_ternary_blocks : place_ternary_rows, rows, cols,
                                                      FileType::u8, static_cast<size_t>(cols) / 4, ternary_row_bytes(cols)},
                                               padded(rows, kTernaryRows)));
    }

    // One for all linears that have so many columns; the first of them takes the tensor.
    const uint8_t* rotation_signs(int cols) override {
        const auto [found, is_new] = rotation_signs_.try_emplace(cols, nullptr);
        if (!is_new) return found->second;
        const auto bytes = static_cast<size_t>(padded(cols, 8) / 8), stride = static_cast<size_t>(padded(cols, 16) / 8);
        const std::string name = "rotation_signs." + std::to_string(cols);
        return found->second = static_cast<const uint8_t*>(add(name, {Holds::signs, place_copied, 1, cols, FileType::u8, bytes, stride}, 1));
    }

    const uint8_t* dense(const std::string& name, int rows, int cols, DType dtype) override {
        const size_t size = element_bytes(dtype);
        return static_cast<const uint8_t*>(add(name, {Holds::dense, place_copied, rows, cols, kFileTypes[static_cast<int>(dtype)],
                                                      static_cast<size_t>(cols) * size, static_cast<size_t>(padded(cols, 64)) * size},
                                               rows));
    }

    // (rows, cols) in the file, of which each column becomes a row of padded(rows, 16).
    const float* columns(const std::string& name, int rows, int cols) {
        const size_t bytes = static_cast<size_t>(cols) * sizeof(float), stride = static_cast<size_t>(padded(rows, 16)) * sizeof(float);
        return static_cast<const float*>(add(name, {Holds::floats, place_transposed, rows, cols, FileType::f32, bytes, stride}, cols));
    }

    Linear linear(const std::string& name, int rows, int cols, bool table = false) {
        Linear linear{.rows = rows, .cols = cols};
        linear.front.norm_eps = model_.config.norm_eps;
        const auto found = kinds_.find(name);
        if (found == kinds_.end()) {
            fail(error("ERR_CONFIG", "The model's config has no kind for " + name + "."));
            return linear;
        }
        const LinearKind& kind = *found->second;
        kinds_.erase(found);
        if (table && (kind.form == LinearKind::Form::sign || kind.bias || kind.norm_in)) {
            fail(error("ERR_CONFIG", "The kind of " + name + " is not usable: rows are looked up, so no signs with g and h, no bias, and no norm in front."));
            return linear;
        }
        fail(bind_linear(*this, name, kind, &linear));
        return linear;
    }

    NormWeights norm(const std::string& name, int n) {
        NormWeights norm{floats(name, n), nullptr};
        if (model_.config.norm_bias) norm.bias = floats(name + ".bias", n);
        return norm;
    }

    void fail(Status status) {
        if (status_.ok()) status_ = std::move(status);
    }

    // The first thing that was wrong; a tensor or a kind that nobody asked for is one.
    Status finish() {
        if (!kinds_.empty()) fail(error("ERR_CONFIG", "A model of this config has no matrix " + kinds_.begin()->first + "."));
        if (!tensors_.empty()) fail(bad_table("A model of this config has no tensor " + tensors_.begin()->first + "."));
        return std::move(status_);
    }

private:
    using Holds = TensorRead::Holds;

    // Takes `strides` times the tensor's stride of the arena.
    void* add(const std::string& name, TensorRead read, int64_t strides) {
        if (!status_.ok()) return nullptr;
        read.name = name;
        if (const auto found = tensors_.find(name); found != tensors_.end()) {
            const TensorSlot& slot = *found->second;
            const uint64_t bytes = read.file_bytes();
            if (slot.type != read.type || slot.bytes != bytes || bytes > file_.file_bytes || slot.offset > file_.file_bytes - bytes) {
                fail(bad_table("Tensor " + name + " should have " + std::to_string(bytes) + " bytes of its type inside the file, not " +
                               std::to_string(slot.bytes) + " at offset " + std::to_string(slot.offset) + "."));
            }
            read.offset = slot.offset;
            read.crc32c = slot.crc32c;
            tensors_.erase(found);
        } else if (file_.slots) {
            fail(bad_table("Tensor " + name + " is missing."));
        }
        read.destination = model_.arena.take(static_cast<size_t>(strides) * read.stride);
        reads_.push_back(std::move(read));
        return reads_.back().destination;
    }

    Model& model_;
    TensorsOfFile file_;
    std::vector<TensorRead>& reads_;
    std::unordered_map<std::string, const TensorSlot*> tensors_;  // not asked for yet
    std::unordered_map<std::string, const LinearKind*> kinds_;
    std::unordered_map<int, const uint8_t*> rotation_signs_;  // by columns
    Status status_;
};

void bind_attention(Binder& bind, const Config& config, const std::string& prefix, Layer* layer) {
    layer->wq = bind.linear(prefix + "wq", config.wq_rows(), config.dim);
    layer->wk = bind.linear(prefix + "wk", config.kv_dim(), config.dim);
    layer->wv = bind.linear(prefix + "wv", config.kv_dim(), config.dim);
    if (config.qk_norm) {
        layer->q_norm = bind.floats(prefix + "q_norm", config.head_dim);
        layer->k_norm = bind.floats(prefix + "k_norm", config.head_dim);
    }
    if (config.attention_inner_norm) layer->attention_inner_norm = bind.norm(prefix + "attention_inner_norm", config.q_dim());
    layer->wo = bind.linear(prefix + "wo", config.dim, config.q_dim());
}

void bind_delta(Binder& bind, const Config& config, const std::string& prefix, Layer* layer) {
    DeltaWeights& delta = layer->delta;
    delta.qkv = bind.linear(prefix + "w_qkv", config.delta_channels(), config.dim);
    delta.z = bind.linear(prefix + "w_z", config.delta_inner(), config.dim);
    delta.beta = bind.linear(prefix + "w_beta", config.delta_v_heads, config.dim);
    delta.alpha = bind.linear(prefix + "w_alpha", config.delta_v_heads, config.dim);
    delta.conv = bind.columns(prefix + "conv", config.delta_channels(), config.delta_conv);
    delta.decay = bind.floats(prefix + "decay", config.delta_v_heads);
    delta.time_bias = bind.floats(prefix + "time_bias", config.delta_v_heads);
    delta.norm = bind.floats(prefix + "delta_norm", config.delta_v_dim);
    layer->wo = bind.linear(prefix + "w_out", config.dim, config.delta_inner());
}

void bind_layer(Binder& bind, const Config& config, const std::string& prefix, Layer* layer) {
    layer->attention_norm = bind.norm(prefix + "attention_norm", config.dim);
    (layer->is_delta ? bind_delta : bind_attention)(bind, config, prefix, layer);
    layer->ffn_norm = bind.norm(prefix + "ffn_norm", config.dim);
    layer->w1 = bind.linear(prefix + "w1", config.hidden_dim, config.dim);
    if (config.ffn_inner_norm) layer->ffn_inner_norm = bind.norm(prefix + "ffn_inner_norm", config.hidden_dim);
    layer->w2 = bind.linear(prefix + "w2", config.dim, config.hidden_dim);
    if (config.gated) layer->w3 = bind.linear(prefix + "w3", config.hidden_dim, config.dim);
}

bool alike(const Linear& a, const Linear& b) {
    const auto same = [&](int i) { return a.stage[i].kind == b.stage[i].kind && a.stage[i].rows == b.stage[i].rows; };
    return a.stages == b.stages && same(0) && same(1) && a.front.any() == b.front.any();
}

// Layers of one sort have the same sizes, so that only kinds, ranks and whether something stands in front can differ.
bool alike(const Layer& a, const Layer& b) {
    const DeltaWeights &d = a.delta, &e = b.delta;
    if (a.is_delta != b.is_delta || !alike(d.qkv, e.qkv) || !alike(d.z, e.z) || !alike(d.beta, e.beta) || !alike(d.alpha, e.alpha)) {
        return false;
    }
    return alike(a.wq, b.wq) && alike(a.wk, b.wk) && alike(a.wv, b.wv) && alike(a.wo, b.wo) && alike(a.w1, b.w1) &&
           alike(a.w2, b.w2) && alike(a.w3, b.w3);
}

Status bind_tensors(Model* model, const std::vector<NamedKind>& kinds, TensorsOfFile file, std::vector<TensorRead>* reads) {
    Binder bind(model, kinds, file, reads);
    const Config& config = model->config;
    model->embedding = bind.linear("tok_embeddings", config.vocab_size, config.dim, true);
    if (config.learned_positions) {
        const int rows = config.context_length + config.position_offset;
        model->positions = reinterpret_cast<const float*>(bind.dense("position_embeddings", rows, config.dim, DType::f32));
    }
    model->layers.assign(static_cast<size_t>(config.n_layers), Layer{});
    for (size_t l = 0; l < model->layers.size(); ++l) {
        Layer& layer = model->layers[l];
        layer.is_delta = config.is_delta(static_cast<int>(l));
        bind_layer(bind, config, "layers." + std::to_string(l) + ".", &layer);
        while (!alike(model->layers[static_cast<size_t>(layer.like)], layer)) ++layer.like;
    }
    model->norm = bind.norm("norm", config.dim);
    model->head = config.tied_head ? model->embedding : bind.linear("output", config.vocab_size, config.dim, true);
    return bind.finish();
}

}  // namespace

Status new_model(const Config& config, const std::vector<NamedKind>& kinds, TensorsOfFile file, Activations activations,
                 const KernelSet* kernels, std::vector<TensorRead>* reads, std::shared_ptr<Model>* out) {
    if (Status status = check_config(config); !status.ok()) return status;
    auto model = std::make_shared<Model>();
    model->config = config;
    model->activations = activations;
    model->kernels = kernels;
    model->rope = make_rope_table(config.rope, config.rotated());
    if (Status status = bind_tensors(model.get(), kinds, file, reads); !status.ok()) return status;
    *out = std::move(model);
    return {};
}

Status place_tensors(Model* model, const std::vector<NamedKind>& kinds, TensorsOfFile file, std::vector<TensorRead>* reads) {
    const size_t needed = model->arena.used();
    if (!model->arena.reserve(needed)) {
        return error("ERR_OUT_OF_MEMORY", "The system has no " + std::to_string(needed >> 20) + " MiB for the weights.");
    }
    reads->clear();
    return bind_tensors(model, kinds, file, reads);
}

}  // namespace onebit
