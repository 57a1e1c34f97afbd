# Zig's clang as a cross compiler, for scripts/prebuilds.mjs: -DZIG=<program> -DZIG_TARGET=x86_64-windows-gnu and the like.
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ZIG ZIG_TARGET)

if(ZIG_TARGET MATCHES "-windows")
  set(CMAKE_SYSTEM_NAME Windows)
elseif(ZIG_TARGET MATCHES "-macos")
  set(CMAKE_SYSTEM_NAME Darwin)
else()
  set(CMAKE_SYSTEM_NAME Linux)
endif()
string(REGEX MATCH "^[a-z0-9_]+" CMAKE_SYSTEM_PROCESSOR "${ZIG_TARGET}")

set(CMAKE_CXX_COMPILER ${ZIG} c++ -target ${ZIG_TARGET})
# Its ar and ranlib are commands of the same program, which CMake cannot say; only objects are made, no archives.
set(CMAKE_AR ${ZIG})
set(CMAKE_RANLIB ${ZIG})

# Stripped by the linker: whatever is cut out later makes the signature of a macOS addon wrong.
set(CMAKE_SHARED_LINKER_FLAGS_INIT "-s")
set(CMAKE_EXE_LINKER_FLAGS_INIT "-s")
# -O3 for CMake's own trials too: otherwise Zig would compile its standard library once more for them. -g0: else there is debug
# information, for the linker to throw away.
set(CMAKE_CXX_FLAGS_INIT "-O3 -g0")
if(ZIG_TARGET MATCHES "-musl")
  set(CMAKE_EXE_LINKER_FLAGS_INIT "-s -static")  # test programs that need no musl on this machine
endif()
if(ZIG_TARGET MATCHES "-macos")
  # <cmath> of libc++ 22 asks Apple's newest <float.h> for NAN alone, whose guard then keeps FLT_MAX from <cfloat>. Included
  # first, and not in strict mode, that header gives everything.
  set(CMAKE_CXX_FLAGS_INIT "-O3 -g0 -include float.h -U__STRICT_ANSI__")
  # Else the addon would have the folder of this build as its own name.
  set(CMAKE_INSTALL_NAME_DIR @rpath)
  set(CMAKE_BUILD_WITH_INSTALL_NAME_DIR ON)
endif()
