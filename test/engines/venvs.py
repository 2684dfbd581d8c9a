# SPDX-License-Identifier: Apache-2.0
"""The venvs that engines are tested in: BUILD/engines/NAME, made once, and anew when what it is made from changes.

A file `weft-installed` in it, written last, says what it was made from; a venv without is removed, because an install
that was interrupted leaves one that imports and is not whole.
"""
import os
import pathlib
import shutil
import sys
import tarfile

from follow import follow, say

HERE = pathlib.Path(__file__).resolve().parent
PIP = ["-m", "pip", "install", "--disable-pip-version-check"]
INSTALL_S, COMPILE_S = 1800, 3600

# Nothing of this machine's processor, and none of what the tests do not use.  -O1 takes half of the time of -O3.
LLAMA_CMAKE = ["-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_C_FLAGS_RELEASE=-O1 -DNDEBUG",
               "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG", "-DGGML_NATIVE=OFF", "-DGGML_CCACHE=OFF",
               "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_APP=OFF",
               "-DLLAMA_USE_PREBUILT_UI=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_ALL_WARNINGS=OFF",
               "-DLLAMA_BUILD_NUMBER=0", "-DLLAMA_BUILD_COMMIT=sdist"]


def versions():
    """NAME: (version, how, of which other)."""
    rows = [line.split() for line in (HERE / "versions.txt").read_text().splitlines() if line and line[0] != "#"]
    return {row[0]: (*row[1:], "", "", "")[:3] for row in rows}


def llama_source(version, folder, python, log):
    """llama.cpp as llama-cpp-python's source package has it, unpacked; None when it cannot be had."""
    source = folder / "source"
    if (source / "weft-whole").is_file():
        return source
    shutil.rmtree(source, ignore_errors=True)
    words = [python, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
             "--no-binary", "llama-cpp-python", "-d", folder, f"llama-cpp-python=={version}"]
    if follow("llamacpp", words, log, INSTALL_S):
        return None
    packed = next(folder.glob(f"llama_cpp_python-{version}.tar.gz"))
    with tarfile.open(packed) as tar:
        tar.extractall(folder / "unpacked", filter="data")
    next((folder / "unpacked").iterdir()).rename(source)
    (folder / "unpacked").rmdir()
    packed.unlink()
    (source / "weft-whole").touch()
    return source


def install_llama(version, venv, python, log):
    """llama.cpp is compiled beside the venv, with its server, which the package's own build leaves out; an interrupted
    build goes on where it was.  The package itself is then Python alone, and finds the libraries by a link."""
    folder = venv.parent / f"llama.cpp-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    source = llama_source(version, folder, python, log)
    if source is None:
        return False
    build = folder / "build"
    launcher = [f"-DCMAKE_{language}_COMPILER_LAUNCHER=ccache" for language in ("C", "CXX") if shutil.which("ccache")]
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    jobs = max(1, min(os.cpu_count() or 1, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 31))
    if not (build / "bin" / "llama-server").is_file():
        say(f"  llamacpp: compiles llama.cpp and its server, with {jobs} at a time: some {24 // jobs} minutes, once")
    compiled = follow("llamacpp", ["cmake", *generator, "-S", source / "vendor" / "llama.cpp", "-B", build,
                                   *LLAMA_CMAKE, *launcher], log, 300) == 0
    for target in ("llama", "llama-server"):
        compiled = compiled and follow("llamacpp", ["cmake", "--build", build, "-j", str(jobs), "--target", target],
                                       log, COMPILE_S) == 0
    if not (build / "bin" / "libllama.so").exists():
        return False
    environment = {**os.environ, "CMAKE_ARGS": "-DLLAMA_BUILD=OFF -DLLAVA_BUILD=OFF"}
    if follow("llamacpp", [python, *PIP, source], log, INSTALL_S, env=environment):
        return False
    libraries = next(venv.glob("lib/python*/site-packages/llama_cpp")) / "lib"
    shutil.rmtree(libraries, ignore_errors=True)
    libraries.symlink_to(build / "bin")
    if compiled:
        (venv / "bin" / "llama-server").symlink_to(build / "bin" / "llama-server")
    return True


def venv_of(name, build, log):
    """The folder of the engine's venv, made when it is not there; None when that cannot be."""
    version, how, other = versions()[name]
    if other:
        venv = venv_of(other, build, log)
        return None if venv is None or (how == "program" and not (venv / "bin" / name).exists()) else venv
    venv = build / "engines" / name
    python, stamp, requirements = venv / "bin" / "python", venv / "weft-installed", HERE / name / "requirements.txt"
    wanted = f"Python {sys.version_info[0]}.{sys.version_info[1]}, {version} {how}\n{requirements.read_text()}"
    if stamp.is_file() and stamp.read_text() == wanted:
        return venv
    say(f"  {name}: installs {version} into {venv}, what pip says goes to {log}")
    shutil.rmtree(venv, ignore_errors=True)
    if follow(name, [sys.executable, "-m", "venv", venv], log, INSTALL_S) or \
            follow(name, [python, *PIP, "-r", requirements], log, INSTALL_S):
        return None
    if how == "compiled":
        if not install_llama(version, venv, python, log):
            return None
    elif how != "inside":
        alone = ["--no-deps"] if how == "alone" else []
        if follow(name, [python, *PIP, *alone, f"{name}=={version}"], log, INSTALL_S):
            return None
    stamp.write_text(wanted)
    return venv
