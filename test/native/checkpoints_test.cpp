// Going back with states that cannot: from checkpoints, which are thinned to a limit and shared by forks, to the same logits
// as without it.
#include <cstring>
#include <vector>

#include "check.h"
#include "made_model.h"
#include "run/forward.h"

using namespace onebit;

namespace {

constexpr int kTokens = 900;

Config small_config() {
    Config c;
    c.vocab_size = 50;
    c.dim = c.hidden_dim = 16;
    c.n_layers = 2;
    c.n_heads = c.n_kv_heads = 1;
    c.head_dim = 8;
    c.context_length = 1024;
    c.delta_layers = {0};
    c.delta_k_heads = 1;
    c.delta_v_heads = 2;
    c.delta_k_dim = 8;
    c.delta_v_dim = 5;
    c.delta_conv = 3;
    return c;
}

struct Setting {
    Setting() : file(small_config(), made::kinds_of(small_config(), LinearKind{}, LinearKind{}), 7) {
        pool.resize(1);
        CHECK(file.load(*choose_kernels("scalar", nullptr), Activations::f32, pool, &model).ok());
        for (int i = 0; i < kTokens; ++i) ids.push_back((i * 7 + i / 11) % 50);
        std::unique_ptr<Session> session = open();
        logits = run(*session, kTokens, 200);
    }

    std::unique_ptr<Session> open() {
        std::unique_ptr<Session> session;
        CHECK(Session::create(model, 1024, DType::f32, &session).ok());
        return session;
    }

    // Goes on to `end`, `piece` tokens at a time. The logits of each.
    std::vector<std::vector<float>> run(Session& session, int end, int piece, bool every = true) {
        std::vector<std::vector<float>> rows;
        while (session.length() < end) {
            std::vector<TokenInput> inputs;
            for (int i = session.length(); i < end && static_cast<int>(inputs.size()) < piece; ++i) {
                inputs.push_back({&session, ids[static_cast<size_t>(i)], every || i + 1 == end, false, !every && i + 1 == end});
            }
            const auto sink = [&](int, const float* row) { rows.emplace_back(row, row + 50); };
            if (!CHECK(forward(*model, pool, workspace, inputs.data(), static_cast<int>(inputs.size()), sink).ok())) break;
        }
        return rows;
    }

    // Whether a session goes on as it should.
    bool goes_on(Session& session, int tokens) {
        const int from = session.length();
        const auto rows = run(session, from + tokens, tokens);
        for (size_t i = 0; i < rows.size(); ++i) {
            if (rows[i] != logits[static_cast<size_t>(from) + i]) return false;
        }
        return !rows.empty();
    }

    made::ModelFile file;
    Pool pool;
    Workspace workspace;
    std::shared_ptr<Model> model;
    std::vector<int32_t> ids;
    std::vector<std::vector<float>> logits;  // after each of ids
};

// The longest way back is that from the last checkpoint, which lies every 256 tokens, or a step more.
void goes_back_to_every_length(Setting& s) {
    for (int length = 0; length < kTokens; length += 23) {
        const std::unique_ptr<Session> session = s.open();
        s.run(*session, kTokens, 64);
        const int reachable = session->reachable(length);
        session->rewind(length);
        CHECK(session->length() == reachable && reachable <= length && length - reachable < 256 + 64);
        CHECK(s.goes_on(*session, 3));
    }
}

// A step back is always there.
void goes_back_one_step(Setting& s) {
    const std::unique_ptr<Session> session = s.open();
    s.run(*session, 10, 64);
    s.run(*session, 13, 1);
    session->rewind(12);
    CHECK(session->length() == 12 && s.goes_on(*session, 1));
    session->rewind(12);
    CHECK(session->length() == 12);
    session->rewind(11);  // what was before that is not known any more
    CHECK(session->length() == 0 && s.goes_on(*session, 20));
}

void keeps_where_something_ends(Setting& s) {
    const std::unique_ptr<Session> session = s.open();
    s.run(*session, 40, 64);   // a prompt
    s.run(*session, 60, 1);    // an answer
    CHECK(session->reachable(59) == 59 && session->reachable(50) == 40 && session->reachable(39) == 0);
    session->mark();
    s.run(*session, 100, 64);
    s.run(*session, 110, 64);
    CHECK(session->reachable(109) == 100 && session->reachable(99) == 60);
}

// Of a text whose last logits are asked for, the state a few tokens before its end is kept, wherever the steps end.
void keeps_a_little_before_an_end(Setting& s) {
    for (const int piece : {9, 40, 64, 256}) {
        for (const int end : {9, 17, 40, 64, 100, 300}) {
            const std::unique_ptr<Session> session = s.open();
            s.run(*session, end, piece, false);
            s.run(*session, end + 3, 1);
            const int last = (end - 1) % piece + 1;  // tokens of the last step
            // Two are never less than 16 apart.
            if (last > 8 && end - 8 >= 16) CHECK(session->reachable(end - 1) > end - 8 - 16);
            if (end == 40 && piece >= 40) CHECK(session->reachable(end - 1) == end - 8);
            const int reachable = session->reachable(end - 1);
            session->rewind(end - 1);
            CHECK(session->length() == reachable && s.goes_on(*session, 5));
        }
    }
}

void is_thinned_to_its_limit(Setting& s) {
    std::unique_ptr<Session> session = s.open();
    const uint64_t each = session->state_bytes();
    s.model->checkpoints->set_limit(4 * each);
    for (int end = 20; end <= kTokens; end += 20) {
        session->mark();
        s.run(*session, end, 64);
        CHECK(s.model->checkpoints->bytes() <= 4 * each);
    }
    CHECK(s.model->checkpoints->bytes() == 4 * each);
    // Close to the end they are dense, and there are some from long ago.
    const std::vector<int> lengths = session->hold_states(10);
    CHECK(lengths.size() == 5 && lengths[4] == kTokens && lengths[3] >= kTokens - 60 && lengths[0] < kTokens - 200);
    for (const int length : lengths) CHECK(session->reachable(length) == length);
    // Another session's are as good: the ones that were not used for longest go.
    const std::unique_ptr<Session> other = s.open();
    s.run(*other, 20, 64);
    for (int i = 0; i < 3; ++i) other->mark(), s.run(*other, 40 + 20 * i, 64);
    CHECK(s.model->checkpoints->bytes() == 4 * each && other->reachable(59) == 40);
    // What was thinned is missed, not wrong.
    session->rewind(lengths[0]);
    CHECK(session->length() <= lengths[0] && s.goes_on(*session, 30));
    session.reset();
    CHECK(s.model->checkpoints->bytes() <= 3 * each);
    s.model->checkpoints->set_limit(0);
    CHECK(s.model->checkpoints->bytes() == 0 && other->reachable(30) == 0);
    other->mark();
    s.run(*other, 200, 64);
    CHECK(s.model->checkpoints->bytes() == 0);
    s.model->checkpoints->set_limit(Checkpoints::kDefaultLimit);
}

void is_shared_by_forks(Setting& s) {
    std::unique_ptr<Session> session = s.open();
    s.run(*session, 600, 200);
    const uint64_t before = s.model->checkpoints->bytes();
    CHECK(before == session->state_bytes());
    const std::unique_ptr<Session> fork = s.open(), early = s.open();
    CHECK(fork->copy_from(*session, 600).ok() && fork->length() == 600 && s.model->checkpoints->bytes() == before);
    CHECK(early->copy_from(*session, 450).ok() && early->length() == 400 && s.goes_on(*early, 9));
    session.reset();
    CHECK(s.model->checkpoints->bytes() == before);
    fork->rewind(500);
    CHECK(fork->length() == 400 && s.goes_on(*fork, 9));
}

void states_are_written_in_order(Setting& s) {
    const std::unique_ptr<Session> session = s.open(), other = s.open();
    s.run(*session, 300, 150);
    session->mark();
    s.run(*session, 330, 30);
    std::vector<unsigned char> chunk(session->chunk_bytes()), state(session->state_bytes());
    const auto code = [](const Status& status) { return std::string(status.ok() ? "" : status.code); };
    CHECK(code(other->write_state(10, state.data())) == "ERR_BAD_OPTION");
    for (int i = 0; i < session->used_chunks(); ++i) {
        session->read_chunk(i, chunk.data());
        CHECK(other->write_chunk(i, chunk.data()).ok());
    }
    CHECK(code(other->restored(330)) == "ERR_BAD_OPTION");
    const std::vector<int> lengths = session->hold_states(9);
    CHECK((lengths == std::vector<int>{300, 330}));
    for (size_t i = 0; i < lengths.size(); ++i) {
        session->read_state(static_cast<int>(i), state.data());
        CHECK(other->write_state(lengths[i], state.data()).ok());
        CHECK(code(other->write_state(lengths[i], state.data())) == "ERR_BAD_OPTION");
    }
    CHECK(code(other->write_state(800, state.data())) == "ERR_BAD_OPTION");
    CHECK(code(other->restored(329)) == "ERR_BAD_OPTION");
    CHECK(other->restored(330).ok() && s.goes_on(*other, 10));
    other->rewind(320);
    CHECK(other->length() == 300 && s.goes_on(*other, 40));
}

}  // namespace

int main() {
    Setting setting;
    goes_back_to_every_length(setting);
    goes_back_one_step(setting);
    keeps_where_something_ends(setting);
    keeps_a_little_before_an_end(setting);
    is_thinned_to_its_limit(setting);
    is_shared_by_forks(setting);
    states_are_written_in_order(setting);
    return check::summary();
}
