// A Session: one timeline of a model: the KV cache and how much of it is filled.
#pragma once

#include <cstdint>
#include <memory>

#include "model/model.h"

namespace onebit {

class Session {
public:
    // capacity: positions, 1..config.context_length. kv: DType::f16, DType::f32 or DType::q8.
    static Status create(std::shared_ptr<Model> model, int capacity, DType kv, std::unique_ptr<Session>* out);
    ~Session();

    Model& model() const { return *model_; }
    int capacity() const { return capacity_; }
    int length() const { return length_; }
    DType kv_dtype() const { return kv_; }
    uint64_t bytes() const { return bytes_; }

    void rewind(int length);              // 0 <= length <= length()
    void copy_from(const Session& other);  // same model, capacity >= other.length(), same kv dtype

    KvHead kv_head(int layer, int head) const;
    // Writes one position of one head: k, v (head_dim) floats.
    void store(int layer, int head, int position, const float* k, const float* v);
    void advance(int n) { length_ += n; }

private:
    Session() = default;
    size_t kv_heads() const { return static_cast<size_t>(model_->config.n_kv_heads); }
    size_t rows_bytes() const;  // of one head's keys in one chunk
    size_t head_bytes() const;
    size_t chunk_bytes() const;
    void store_row(const KvHead& cache, bool is_key, int position, const float* x);

    std::shared_ptr<Model> model_;
    int capacity_ = 0;
    int length_ = 0;
    DType kv_ = DType::f16;
    uint64_t bytes_ = 0;
    unsigned char* memory_ = nullptr;  // (chunk, layer, kv_head) of k, v, and with q8 k_scale, v_scale
};

}  // namespace onebit
