// A Session: one timeline of a model: what its layers remember of the tokens so far.
#pragma once

#include <memory>
#include <vector>

#include "model/model.h"
#include "system/memory.h"

namespace onebit {

// What one layer remembers of a session: keys and values of every position, or (is_delta) a state that every token changes,
// which lies beside the chunks.
struct LayerState {
    size_t at = 0;  // bytes from the start of a chunk, or of a state
    bool is_delta = false;
};

// A layer's state of the delta rule: as it is, and where the step under way writes what becomes of it.
struct DeltaState {
    const float* columns;  // (delta_conv - 1, delta_channels) what the convolution saw last, the oldest first
    const float* now;      // (delta_v_heads) each as the kernels have it
    float *next_columns, *next;
    // Where the state after the first `tail_at` tokens of the step is wanted too; null: nowhere.
    float *tail_columns = nullptr, *tail = nullptr;
    int tail_at = 0;
};

class Session {
public:
    // capacity: positions, 1..config.context_length. kv: DType::f16, DType::f32 or DType::q8. Takes addresses, no memory yet.
    static Status create(std::shared_ptr<Model> model, int capacity, DType kv, std::unique_ptr<Session>* out);

    Model& model() const { return *model_; }
    int capacity() const { return capacity_; }
    int length() const { return length_; }
    DType kv_dtype() const { return kv_; }
    uint64_t bytes() const { return usable_chunks_ * chunk_bytes_ + (usable_chunks_ > 0 ? 2 * state_bytes_ : 0); }  // in use
    uint64_t capacity_bytes() const { return chunks_of(capacity_) * chunk_bytes_ + 2 * state_bytes_; }

    // Memory for the first `positions` <= capacity() positions, a chunk at a time. ERR_OUT_OF_MEMORY, with everything as it was.
    Status grow(int positions);
    // Back to the first `length` <= length() positions; with layers of the delta rule, whose states do not go back, to the
    // longest beginning of those at which they are known: the last checkpoint, or the step before this one. length() says how
    // many positions that left, reachable() how many it would leave.
    void rewind(int length);
    int reachable(int length) const;
    // Where the session is now, something ends: it is a better place for a checkpoint than another.
    void mark() { marked_ = true; }
    // The first `length` positions of another session of the same model with the same kv dtype, or as many as rewind() would
    // have left. ERR_OUT_OF_MEMORY.
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
    // With layers of the delta rule their states at the newest checkpoints, at most so many, and at length(): positions,
    // ascending. They can be read by their place in this list until it is made anew. None without such layers, or at 0.
    size_t state_bytes() const { return state_bytes_; }
    std::vector<int> hold_states(int most_checkpoints);
    void read_state(int index, unsigned char* out) const;
    int held_states() const { return static_cast<int>(held_.size()); }
    // Written back after the chunks, in order; the last one must be that of restored(). ERR_BAD_OPTION.
    Status write_state(int length, const unsigned char* bytes);
    Status restored(int length);

    KvHead kv_head(int layer, int head) const;
    // Writes one position of one head: k, v (head_dim) floats. There is memory for it.
    void store(int layer, int head, int position, const float* k, const float* v);
    DeltaState delta_state(int layer) const;
    // A step writes states beside those there are, so that one that is given up has changed nothing; advance() takes its states.
    // n: tokens of the step. ends: a text ends with it, and something else will follow. answers: they are of an answer that is
    // under way, chosen and guessed; a single one always is.
    void begin_step(int n, bool ends, bool answers);
    void advance(int n);

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
    size_t state_bytes_ = 0;  // of all layers of the delta rule
    uint64_t usable_chunks_ = 0;
    int written_chunks_ = 0;  // by write_chunk(), with nothing else since
    int state_written_ = 0;   // by write_state(): the position of the last one
    Reservation memory_;  // (chunk, layer, kv_head) of k, v, and with q8 k_scale, v_scale

    // Two states: number now_ is that at length(); the other one that of before the last step, at length before_.
    static constexpr int kUnknown = -1;
    unsigned char* state(int which) const { return states_.base() + static_cast<size_t>(which) * state_bytes_; }
    Reservation states_;
    int now_ = 0, before_ = kUnknown;

    // The newest state that is known at or before a position. which: kUnknown, or one of the two above.
    struct Known {
        int length = 0;
        int which = kUnknown;
        StateBytes bytes;  // of a checkpoint; null, and which unknown: at 0, where everything is zero
    };
    Known known_at(int length) const;
    void make_tail();
    std::vector<std::shared_ptr<Checkpoint>> kept_;  // ascending
    std::vector<StateBytes> held_;                   // null: the state at length()
    bool marked_ = false, answers_ = false;          // answers: the last step was of an answer
    std::shared_ptr<unsigned char[]> tail_;          // of the step under way: its state after tail_at_ tokens; or null
    int tail_at_ = 0;
};

}  // namespace onebit
