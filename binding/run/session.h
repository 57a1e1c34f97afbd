// A Session: one timeline of a model: what its layers remember of the tokens so far.
#pragma once

#include <memory>
#include <vector>

#include "model/model.h"
#include "system/memory.h"

namespace onebit {

// What one layer remembers of a session. Keys and values of every position are the one kind there is; a state that cannot
// be rewound (one that every token changes) would be another. It would lie beside the chunks, not in them, and be read and
// written back as one piece, as it is at length(): between the chunks and restored(), which would ask that it was written.
struct LayerState {
    size_t at = 0;  // bytes from the start of a chunk
    bool rewinds = true;
};

class Session {
public:
    // capacity: positions, 1..config.context_length. kv: DType::f16, DType::f32 or DType::q8. Takes addresses, no memory yet.
    static Status create(std::shared_ptr<Model> model, int capacity, DType kv, std::unique_ptr<Session>* out);

    Model& model() const { return *model_; }
    int capacity() const { return capacity_; }
    int length() const { return length_; }
    DType kv_dtype() const { return kv_; }
    uint64_t bytes() const { return usable_chunks_ * chunk_bytes_; }  // in use
    uint64_t capacity_bytes() const { return chunks_of(capacity_) * chunk_bytes_; }

    // Memory for the first `positions` <= capacity() positions, a chunk at a time. ERR_OUT_OF_MEMORY, with everything as it was.
    Status grow(int positions);
    bool can_rewind() const;
    void rewind(int length);  // 0 <= length <= length(), and can_rewind() where it is less
    // The first `length` positions of another session of the same model with the same kv dtype. ERR_OUT_OF_MEMORY.
    Status copy_from(const Session& other, int length);

    // ---- what it remembers, as bytes: the layout follows from the config and the kv dtype
    size_t chunk_bytes() const { return chunk_bytes_; }
    int used_chunks() const { return static_cast<int>(chunks_of(length_)); }
    int most_chunks() const { return static_cast<int>(chunks_of(capacity_)); }
    // Chunk number `index` < used_chunks(); zeros from position length() on.
    void read_chunk(int index, unsigned char* out) const;
    // The other way round, into an empty session: chunks in order, then how many of their positions there are. Whatever else
    // is done with the session in between ends that. ERR_BAD_OPTION: out of order, or more than was written. ERR_OUT_OF_MEMORY.
    Status write_chunk(int index, const unsigned char* bytes);
    Status restored(int length);

    KvHead kv_head(int layer, int head) const;
    // Writes one position of one head: k, v (head_dim) floats. There is memory for it.
    void store(int layer, int head, int position, const float* k, const float* v);
    void advance(int n) { length_ += n; }

private:
    Session(std::shared_ptr<Model> model, int capacity, DType kv);
    static uint64_t chunks_of(int positions) { return static_cast<uint64_t>(padded(positions, kKvChunk) / kKvChunk); }

    std::shared_ptr<Model> model_;
    int capacity_;
    int length_ = 0;
    DType kv_;
    // In one chunk: of one head's keys, of one head with its values and their scales, and of everything.
    size_t rows_bytes_ = 0, head_bytes_ = 0, chunk_bytes_ = 0;
    std::vector<LayerState> layers_;
    uint64_t usable_chunks_ = 0;
    int written_chunks_ = 0;  // by write_chunk(), with nothing else since
    Reservation memory_;  // (chunk, layer, kv_head) of k, v, and with q8 k_scale, v_scale
};

}  // namespace onebit
