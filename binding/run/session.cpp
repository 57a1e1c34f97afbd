#include "run/session.h"

#include <algorithm>
#include <cstring>

namespace onebit {

namespace {

// Keys go where their block wants them, kKeyBlock elements apart; values lie in a row. cache: of a chunk, `at` within it.
template <class T>
void scatter(const void* cache, bool is_key, size_t at, const T* row, int head_dim) {
    // The cache is the session's own memory; KvHead is const because the kernels only read it.
    T* to = static_cast<T*>(const_cast<void*>(cache));
    const auto dim = static_cast<size_t>(head_dim);
    if (!is_key) {
        std::memcpy(to + at * dim, row, dim * sizeof(T));
        return;
    }
    to += at / kKeyBlock * kKeyBlock * dim + at % kKeyBlock;
    for (size_t d = 0; d < dim; ++d) to[d * kKeyBlock] = row[d];
}

// Of the parts of one layer's state; each begins on a cache line.
size_t column_floats(const Config& c) { return static_cast<size_t>(padded(int64_t{c.delta_conv - 1} * c.delta_channels(), 16)); }
size_t head_floats(const Config& c) {
    return static_cast<size_t>(c.delta_v_heads) * static_cast<size_t>(c.delta_k_dim) * static_cast<size_t>(padded(c.delta_v_dim, 16));
}

}  // namespace

Session::Session(std::shared_ptr<Model> model, int capacity, DType kv)
    : model_(std::move(model)), capacity_(capacity), kv_(kv), layers_(static_cast<size_t>(model_->config.n_layers)) {
    const Config& config = model_->config;
    rows_bytes_ = kKvChunk * static_cast<size_t>(config.head_dim) * element_bytes(kv);
    head_bytes_ = 2 * (rows_bytes_ + (kv == DType::q8 ? kKvChunk * sizeof(float) : 0));
    const size_t layer_bytes = static_cast<size_t>(config.n_kv_heads) * head_bytes_;
    for (size_t i = 0; i < layers_.size(); ++i) {
        const bool is_delta = model_->layers[i].is_delta;
        size_t& bytes = is_delta ? state_bytes_ : chunk_bytes_;
        layers_[i] = {bytes, is_delta};
        bytes += is_delta ? column_floats(config) * sizeof(float) + head_floats(config) * sizeof(float) : layer_bytes;
    }
}

Status Session::create(std::shared_ptr<Model> model, int capacity, DType kv, std::unique_ptr<Session>* out) {
    const int most = model->config.context_length;
    if (capacity < 1 || capacity > most) {
        return error("ERR_BAD_OPTION", "context: " + std::to_string(capacity) + " is not within 1 to " + std::to_string(most) +
                                           ", the model's own length.");
    }
    std::unique_ptr<Session> session(new Session(std::move(model), capacity, kv));
    // layers <= 2^10, capacity <= 2^22, kv_dim <= 2^16, element 4 and K and V 2: below 2^52.
    const uint64_t bytes = session->capacity_bytes(), states = 2 * session->state_bytes_;
    const auto reserve = [](Reservation& memory, uint64_t wanted) { return wanted == 0 || memory.reserve(static_cast<size_t>(wanted)); };
    if (bytes > SIZE_MAX || !reserve(session->memory_, bytes - states) || !reserve(session->states_, states)) {
        return error("ERR_OUT_OF_MEMORY", "There are no addresses for a KV cache of " + std::to_string(capacity) + " positions (" +
                                              std::to_string(bytes >> 20) + " MiB); ask for a smaller context.");
    }
    *out = std::move(session);
    return {};
}

Status Session::grow(int positions) {
    written_chunks_ = 0;  // who asks for room is about to write something else
    if (state_written_) std::memset(state(now_), 0, state_bytes_);
    state_written_ = false;
    const uint64_t wanted = chunks_of(positions);
    if (wanted <= usable_chunks_) return {};
    const auto grow = [](Reservation& memory, uint64_t bytes) { return bytes == 0 || memory.grow(static_cast<size_t>(bytes)); };
    if (!grow(states_, 2 * state_bytes_) || !grow(memory_, wanted * chunk_bytes_)) {
        return error("ERR_OUT_OF_MEMORY", "The system has no memory for more than " + std::to_string(usable_chunks_ * kKvChunk) +
                                              " of the " + std::to_string(positions) + " positions in this session's KV cache (" +
                                              std::to_string(chunk_bytes_ >> 20) + " MiB for " + std::to_string(kKvChunk) +
                                              "); a smaller context keeps within what there is.");
    }
    usable_chunks_ = wanted;
    return {};
}

void Session::rewind(int length) {
    if (length < 0 || length >= length_) return;
    if (state_bytes_ == 0) {
        length_ = length;
        return;
    }
    if (before_ != kUnknown && before_ <= length) {
        now_ ^= 1;
        length_ = before_;
    } else {
        length_ = 0;
        std::memset(state(now_), 0, state_bytes_);
    }
    before_ = kUnknown;
}

void Session::advance(int n) {
    before_ = length_;
    length_ += n;
    now_ ^= 1;
}

DeltaState Session::delta_state(int layer) const {
    const size_t at = layers_[static_cast<size_t>(layer)].at, heads = column_floats(model_->config);
    auto *now = reinterpret_cast<float*>(state(now_) + at), *next = reinterpret_cast<float*>(state(now_ ^ 1) + at);
    return {now, now + heads, next, next + heads};
}

Status Session::copy_from(const Session& other, int length) {
    const unsigned char* from = nullptr;
    if (state_bytes_ > 0 && length < other.length_) {
        const bool known = other.before_ > 0 && other.before_ <= length;  // at 0 there is nothing yet
        from = known ? other.state(other.now_ ^ 1) : nullptr;
        length = known ? other.before_ : 0;
    } else if (state_bytes_ > 0 && length > 0) {
        from = other.state(other.now_);
    }
    if (Status status = grow(length); !status.ok()) return status;
    if (const auto bytes = static_cast<size_t>(chunks_of(length) * chunk_bytes_); bytes > 0) std::memcpy(memory_.base(), other.memory_.base(), bytes);
    if (from) std::memcpy(state(now_), from, state_bytes_);
    length_ = length;
    return {};
}

void Session::read_chunk(int index, unsigned char* out) const {
    if (chunk_bytes_ == 0) return;
    std::memcpy(out, memory_.base() + static_cast<size_t>(index) * chunk_bytes_, chunk_bytes_);
    const auto filled = static_cast<size_t>(std::min(length_ - index * kKvChunk, kKvChunk));
    const auto dim = static_cast<size_t>(model_->config.head_dim);
    // What was rewound or never written: the bytes of equal tokens must be equal.
    const size_t row = dim * element_bytes(kv_), block = kKeyBlock * row, in_block = filled % kKeyBlock;
    for (unsigned char* head = out; head < out + chunk_bytes_; head += head_bytes_) {
        unsigned char *key = head + filled / kKeyBlock * block, *k_end = head + rows_bytes_, *v_end = k_end + rows_bytes_;
        for (size_t d = 0; d < dim && in_block > 0; ++d) {
            std::memset(key + (d * kKeyBlock + in_block) * element_bytes(kv_), 0, (kKeyBlock - in_block) * element_bytes(kv_));
        }
        if (in_block > 0) key += block;
        std::memset(key, 0, static_cast<size_t>(k_end - key));
        std::memset(k_end + filled * row, 0, (kKvChunk - filled) * row);
        for (unsigned char* scales = v_end; scales < head + head_bytes_; scales += kKvChunk * sizeof(float)) {
            std::memset(scales + filled * sizeof(float), 0, (kKvChunk - filled) * sizeof(float));
        }
    }
}

Status Session::write_chunk(int index, const unsigned char* bytes) {
    if (length_ > 0) return error("ERR_BAD_OPTION", "Chunks are written into an empty session.");
    const int written = written_chunks_;
    if (index != written || index >= most_chunks()) {
        return error("ERR_BAD_OPTION", "Chunk " + std::to_string(index) + " cannot be written after " + std::to_string(written) +
                                           " of at most " + std::to_string(most_chunks()) + ".");
    }
    if (Status status = grow(std::min((index + 1) * kKvChunk, capacity_)); !status.ok()) return status;
    if (chunk_bytes_ > 0) std::memcpy(memory_.base() + static_cast<size_t>(index) * chunk_bytes_, bytes, chunk_bytes_);
    written_chunks_ = written + 1;
    return {};
}

Status Session::write_state(const unsigned char* bytes) {
    if (length_ > 0 || written_chunks_ == 0) return error("ERR_BAD_OPTION", "A state is written after the chunks of an empty session.");
    std::memcpy(state(now_), bytes, state_bytes_);
    state_written_ = true;
    return {};
}

Status Session::restored(int length) {
    const int written = std::min(written_chunks_ * kKvChunk, capacity_);
    if (length_ > 0 || length < 0 || length > written) {
        return error("ERR_BAD_OPTION", std::to_string(length) + " positions are not in the session: " + std::to_string(written) +
                                           " were written.");
    }
    if (state_bytes_ > 0 && length > 0 && !state_written_) return error("ERR_BAD_OPTION", "The session's state was not written.");
    written_chunks_ = 0;
    state_written_ = false;
    length_ = length;
    return {};
}

KvHead Session::kv_head(int layer, int head) const {
    const unsigned char* k = memory_.base() + layers_[static_cast<size_t>(layer)].at + static_cast<size_t>(head) * head_bytes_;
    KvHead found{k, k + rows_bytes_, kv_, chunk_bytes_};
    if (kv_ == DType::q8) {
        found.k_scale = reinterpret_cast<const float*>(k + 2 * rows_bytes_);
        found.v_scale = found.k_scale + kKvChunk;
        found.scale_stride = chunk_bytes_;
    }
    return found;
}

void Session::store(int layer, int head, int position, const float* k, const float* v) {
    const KvHead cache = kv_head(layer, head);
    const int head_dim = model_->config.head_dim;
    const size_t moved = static_cast<size_t>(position / kKvChunk) * chunk_bytes_;
    const auto at = static_cast<size_t>(position % kKvChunk);
    for (const bool is_key : {true, false}) {
        const float* x = is_key ? k : v;
        const void* to = static_cast<const unsigned char*>(is_key ? cache.k : cache.v) + moved;
        if (kv_ == DType::f32) {
            scatter(to, is_key, at, x, head_dim);
        } else if (kv_ == DType::f16) {
            uint16_t row[kMaxHeadDim];
            model_->kernels->f32_to_f16(row, x, head_dim);
            scatter(to, is_key, at, row, head_dim);
        } else {
            int8_t row[kMaxHeadDim];  // a multiple of 64: quantize writes the padding too
            auto* scale = const_cast<float*>(is_key ? cache.k_scale : cache.v_scale) + moved / sizeof(float) + at;
            *scale = model_->kernels->quantize(row, x, nullptr, head_dim);
            scatter(to, is_key, at, row, head_dim);
        }
    }
}

}  // namespace onebit
