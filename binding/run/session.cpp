#include "run/session.h"

#include <algorithm>
#include <cstring>
#include <iterator>

namespace onebit {

namespace {

// A checkpoint is made when so many tokens came after the last one; where something ends, even after a few.
constexpr int kCheckpointTokens = 256, kLeastApart = 16;
// Behind the checkpoint of a text's end: the next text may differ in its last tokens, those with which a template invites an
// answer, and a text that is asked again needs its last token once more. So many take hardly longer than one.
constexpr int kTailTokens = 8;

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
    if (state_written_ > 0) {
        std::memset(state(now_), 0, state_bytes_);
        kept_.clear();
    }
    state_written_ = 0;
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

Session::Known Session::known_at(int length) const {
    if (length >= length_) return {length_, now_, nullptr};
    Checkpoints::Found found = model_->checkpoints->find(kept_, length);
    if (before_ > found.length && before_ <= length) return {before_, now_ ^ 1, nullptr};
    return {found.length, kUnknown, std::move(found.bytes)};
}

int Session::reachable(int length) const {
    return state_bytes_ == 0 ? std::min(length, length_) : known_at(length).length;
}

void Session::rewind(int length) {
    if (length < 0 || length >= length_) return;
    if (state_bytes_ == 0) {
        length_ = length;
        return;
    }
    const Known known = known_at(length);
    if (known.which != kUnknown) {
        now_ = known.which;
    } else if (known.bytes) {
        std::memcpy(state(now_), known.bytes.get(), state_bytes_);
    } else {
        std::memset(state(now_), 0, state_bytes_);
    }
    length_ = known.length;
    before_ = kUnknown;
    while (!kept_.empty() && kept_.back()->length > length_) kept_.pop_back();
}

void Session::begin_step(int n, bool ends, bool answers) {
    before_ = kUnknown;
    tail_.reset();
    if (state_bytes_ == 0) return;
    // Between a prompt and its answer, and where somebody said that something ends; in a long text every so often.
    answers = answers || n == 1;
    const bool other = marked_ || answers != answers_;
    int since = length_ - (kept_.empty() ? 0 : kept_.back()->length);
    if (since >= kCheckpointTokens || (other && since >= kLeastApart)) {
        model_->checkpoints->keep(kept_, length_, state(now_), state_bytes_);
        since = 0;
    }
    tail_at_ = n - kTailTokens;
    if (ends && tail_at_ > 0 && since + tail_at_ >= kLeastApart) make_tail();
    marked_ = false;
    answers_ = answers;
}

// All of it is written by the step but what fills up to a cache line.
void Session::make_tail() {
    tail_ = model_->checkpoints->room(state_bytes_);
    const Config& c = model_->config;
    const size_t columns = static_cast<size_t>(c.delta_conv - 1) * static_cast<size_t>(c.delta_channels());
    for (const LayerState& layer : layers_) {
        if (!tail_ || !layer.is_delta) continue;
        auto* floats = reinterpret_cast<float*>(tail_.get() + layer.at);
        std::fill(floats + columns, floats + column_floats(c), 0.0f);
    }
}

void Session::advance(int n) {
    if (tail_) model_->checkpoints->keep(kept_, length_ + tail_at_, StateBytes(std::move(tail_)), state_bytes_);
    tail_.reset();
    before_ = length_;
    length_ += n;
    now_ ^= 1;
}

DeltaState Session::delta_state(int layer) const {
    const size_t at = layers_[static_cast<size_t>(layer)].at, heads = column_floats(model_->config);
    auto *now = reinterpret_cast<float*>(state(now_) + at), *next = reinterpret_cast<float*>(state(now_ ^ 1) + at);
    DeltaState found{now, now + heads, next, next + heads};
    if (tail_) {
        found.tail_columns = reinterpret_cast<float*>(tail_.get() + at);
        found.tail = found.tail_columns + heads;
        found.tail_at = tail_at_;
    }
    return found;
}

Status Session::copy_from(const Session& other, int length) {
    Known known;
    if (state_bytes_ > 0) {
        known = other.known_at(length);
        length = known.length;
    }
    if (Status status = grow(length); !status.ok()) return status;
    if (const auto bytes = static_cast<size_t>(chunks_of(length) * chunk_bytes_); bytes > 0) std::memcpy(memory_.base(), other.memory_.base(), bytes);
    if (state_bytes_ > 0 && length > 0) {
        std::memcpy(state(now_), known.bytes ? known.bytes.get() : other.state(known.which), state_bytes_);
        const auto shared = [&](const std::shared_ptr<Checkpoint>& checkpoint) { return checkpoint->length <= length; };
        std::copy_if(other.kept_.begin(), other.kept_.end(), std::back_inserter(kept_), shared);
    }
    length_ = length;
    return {};
}

std::vector<int> Session::hold_states(int most_checkpoints) {
    held_.clear();
    std::vector<int> lengths;
    if (state_bytes_ == 0 || length_ == 0) return lengths;
    for (Checkpoints::Found& found : model_->checkpoints->newest(kept_, static_cast<size_t>(most_checkpoints))) {
        if (found.length >= length_) continue;
        lengths.push_back(found.length);
        held_.push_back(std::move(found.bytes));
    }
    lengths.push_back(length_);
    held_.push_back(nullptr);
    return lengths;
}

void Session::read_state(int index, unsigned char* out) const {
    const StateBytes& held = held_[static_cast<size_t>(index)];
    std::memcpy(out, held ? held.get() : state(now_), state_bytes_);
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

Status Session::write_state(int length, const unsigned char* bytes) {
    if (state_bytes_ == 0 || length_ > 0 || length <= state_written_ || length > written_chunks_ * kKvChunk) {
        return error("ERR_BAD_OPTION", "A state at position " + std::to_string(length) + " has no place in this session.");
    }
    if (state_written_ > 0) model_->checkpoints->keep(kept_, state_written_, state(now_), state_bytes_);
    std::memcpy(state(now_), bytes, state_bytes_);
    state_written_ = length;
    return {};
}

Status Session::restored(int length) {
    const int written = std::min(written_chunks_ * kKvChunk, capacity_);
    if (length_ > 0 || length < 0 || length > written) {
        return error("ERR_BAD_OPTION", std::to_string(length) + " positions are not in the session: " + std::to_string(written) +
                                           " were written.");
    }
    if (state_bytes_ > 0 && length != state_written_) {
        return error("ERR_BAD_OPTION", "The session's state at position " + std::to_string(length) + " was not written.");
    }
    written_chunks_ = state_written_ = 0;
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
