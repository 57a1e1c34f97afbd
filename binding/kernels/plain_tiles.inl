// Tiles (tiles.h) in plain C++: what tests run on every machine, and what the processor's are compared with. Included inside an
// anonymous namespace.

class PlainTiles {
public:
    void configure(int first, int second) {
        memset(bytes_, 0, sizeof bytes_);
        for (int t = 0; t < 8; t++) lines_[t] = t >= 6 ? kLines : t == 5 || t / 2 == 1 ? second : first;
    }
    template <int T>
    void zero() {
        memset(bytes_[T], 0, sizeof bytes_[T]);
    }
    template <int T>
    void load(const void* from, size_t stride) {
        for (int i = 0; i < lines_[T]; i++) memcpy(bytes_[T][i], static_cast<const char*>(from) + static_cast<size_t>(i) * stride, kBytesOfLine);
    }
    template <int T>
    void store(void* to, size_t stride) const {
        for (int i = 0; i < lines_[T]; i++) memcpy(static_cast<char*>(to) + static_cast<size_t>(i) * stride, bytes_[T][i], kBytesOfLine);
    }
    template <int C, int A, int B>
    void dot() {
        for (int i = 0; i < lines_[C]; i++) {
            int32_t sums[kLines];
            memcpy(sums, bytes_[C][i], sizeof sums);
            for (int k = 0; k < kBytesOfLine; k++) {
                for (int j = 0; j < kLines; j++) sums[j] += bytes_[A][i][k] * bytes_[B][k / 4][4 * j + k % 4];
            }
            memcpy(bytes_[C][i], sums, sizeof sums);
        }
    }
    void release() { configure(0, 0); }

private:
    static constexpr int kLines = 16, kBytesOfLine = 64;
    int lines_[8] = {};
    int8_t bytes_[8][kLines][kBytesOfLine] = {};
};
