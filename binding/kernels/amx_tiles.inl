// The processor's tiles (AMX), for tile_products.inl. Included inside the anonymous namespace of amx.cpp. Instructions are
// written out because the compilers' own names for them want numbers of tiles as literals, which a template's are not.

class AmxTiles {
public:
    void configure(int first, int second) {
        struct alignas(64) {
            uint8_t palette, start_row, reserved[14];
            uint16_t bytes[16];
            uint8_t lines[16];
        } wanted = {};
        wanted.palette = 1;
        for (int i = 0; i < 8; i++) {
            wanted.bytes[i] = 64;
            wanted.lines[i] = static_cast<uint8_t>(i >= 6 ? 16 : i == 5 || i / 2 == 1 ? second : first);
        }
        asm volatile("ldtilecfg %0" : : "m"(wanted));
    }
    template <int T>
    ONEBIT_INLINE void zero() {
        asm volatile("tilezero %%tmm%c0" : : "i"(T));
    }
    template <int T>
    ONEBIT_INLINE void load(const void* from, size_t stride) {
        asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(T) : "memory");
    }
    template <int T>
    ONEBIT_INLINE void store(void* to, size_t stride) {
        asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(T) : "memory");
    }
    template <int C, int A, int B>
    ONEBIT_INLINE void dot() {
        asm volatile("tdpbssd %%tmm%c0, %%tmm%c1, %%tmm%c2" : : "i"(B), "i"(A), "i"(C));
    }
    void release() { asm volatile("tilerelease"); }
};
