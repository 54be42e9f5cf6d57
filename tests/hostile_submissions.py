"""Hostile submissions, as data: tests/test_sandbox.py and tests/test_grade.py run them.

Each value is the body of a function. TARGET is a file of the teacher's, ROOT the project's folder,
PORT a port that listens, SOCKET an abstract socket, PASSWORD stands in the teacher's environment.
"""

import textwrap

RIGHT = "return jnp.where(cache > 0, dy, 0)"


def relu(body, above=""):
    """A submission of the exercise relu."""
    body = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    return (
        f"import jax\nimport jax.numpy as jnp\n{above}\n\ndef relu_backward(cache, dy):\n{body}\n"
    )


def all_in_one(tries, **names):
    """A submission that tries everything; it names what neither raised nor returned False.

    It cannot be traced: JAX runs it number by number.
    """
    above, body = "found = []\n", "float(dy.reshape(-1)[0])\nfound.clear()\n"
    for name, code in tries.items():
        code = textwrap.indent(textwrap.dedent(code).strip(), "    ")
        above += f"def {name}(cache, dy):\n{IMPORTS}\n{code}\n"
        body += f"try:\n    if {name}(cache, dy) is not False: found.append('{name}')\n"
        body += "except BaseException: pass\n"
    body += f"if found: raise RuntimeError(' '.join(found))\n{RIGHT}"
    source = relu(body, above)
    for name, value in names.items():
        source = source.replace(name, str(value))
    return source


IMPORTS = textwrap.indent(
    """\
import ctypes, fcntl, functools, gc, importlib, os, pickle, resource, signal, socket
import subprocess, sys, termios, threading, time
import numpy as np
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), 'refused')""",
    "    ",
)

# Each must raise, or return False: nothing of the machine is within reach.
REACHES = {
    "reads_passwd": "return open('/etc/passwd').read()",
    "reads_a_neighbour": "return open('TARGET').read()",
    "reads_by_numpy": "return np.fromfile('TARGET')",
    "reads_the_answers": "return open('ROOT/docs/exercises-answers.md').read()",
    "lists_homes": "return bool(os.listdir('/home'))",
    "reads_the_environment": """
        return 'PASSWORD' in repr(os.environ) + open('/proc/self/environ').read()
    """,
    "reads_another_process": """
        return [pid for pid in os.listdir('/proc') if pid.isdigit()] not in (
            ['1', str(os.getpid())], [str(os.getpid()), '1'])
    """,
    "reads_the_parent_s_files": "return os.listdir('/proc/1/root/home')",
    "reads_the_host_s_disks": "return open('/dev/vda', 'rb').read(1)",
    "has_a_file_of_the_parent_s": """
        known = 'pipe:', 'anon_inode:', '/dev/null', '/proc'
        files = [f'/proc/self/fd/{found}' for found in range(64)]
        return any(not os.readlink(f).startswith(known) for f in files if os.path.lexists(f))
    """,
    "writes": "open('TARGET', 'w').write('x')",
    "writes_at_the_root": "open('/x', 'w')",
    "writes_among_packages": "open(jax.__file__, 'w')",
    "writes_in_memory": "open('/dev/shm/x', 'w')",
    "writes_a_temporary_file": "open('/tmp/x', 'w')",
    "makes_a_folder": "os.mkdir('/x')",
    "makes_a_link": "os.symlink('/etc/passwd', '/x')",
    "makes_a_pipe": "os.mkfifo('/x')",
    "removes": "os.remove(os.__file__)",
    "renames": "os.rename(os.__file__, os.__file__ + 'x')",
    "truncates": "os.truncate(os.__file__, 0)",
    "changes_a_mode": "os.chmod(os.__file__, 0)",
    "changes_a_mode_by_fchmodat2": "call(452, -100, os.__file__.encode(), 0, 0)",
    "changes_a_device_s_mode": "os.chmod('/dev/null', 0)",
    "changes_an_owner": "os.chown(os.__file__, 1, 1)",
    "changes_a_time": "os.utime(os.__file__)",
    "changes_a_time_by_utime": "call(132, os.__file__.encode(), None)",
    "changes_a_device_s_time": "os.utime('/dev/null', (0, 0))",
    "sets_an_attribute": "os.setxattr(os.__file__, 'user.x', b'x')",
    "writes_a_kernel_s_setting": "open('/proc/sys/kernel/core_pattern', 'w')",
    "mounts": "call(165, None, b'/', b'tmpfs', 0, None)",
    "mounts_over_itself": "call(165, b'/dev', b'/usr', None, 4096, None)",
    "unshares": "call(272, 0x10000000)",
    "enters_a_namespace": "call(308, os.open('/proc/1/ns/net', os.O_RDONLY), 0)",
    "changes_its_root": "os.chroot('/usr')",
    "becomes_root": "os.setuid(0)",
    "is_root": "return os.getuid() == 0",
    "has_rights": """
        lines = open('/proc/self/status').read().splitlines()
        rights = [line.split()[1] for line in lines if line[:6] in ('CapPrm', 'CapEff', 'CapAmb')]
        return int(rights[0], 16) + int(rights[1], 16) + int(rights[2], 16) > 0
    """,
    "sees_a_network": "return len(socket.if_nameindex()) > 1",
    "connects": "socket.create_connection(('127.0.0.1', PORT), 5)",
    "connects_to_an_abstract_socket": "socket.socket(socket.AF_UNIX).connect(chr(0) + 'SOCKET')",
    "opens_a_socket": "socket.socket(socket.AF_UNIX)",
    "opens_a_pair_of_sockets": "socket.socketpair()",
    "opens_a_socket_by_its_short_call": "call(0x40000000 + 41, 1, 1, 0)",
    "uses_io_uring": "call(425, 1, (ctypes.c_char * 120)())",
    "keeps_shared_memory": "call(29, 0, 4096, 0o1666)",
    "keeps_a_queue": "call(68, 0, 0o1666)",
    "keeps_semaphores": "call(64, 0, 1, 0o1666)",
    "asks_for_a_name": "socket.getaddrinfo('debian.org', 80)",
    "kills_the_first_process": "os.kill(1, 9); time.sleep(.2); return False",
    "raises_its_limits": "resource.setrlimit(resource.RLIMIT_CPU, (-1, -1))",
    "raises_its_memory": "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "types_into_the_terminal": "fcntl.ioctl(os.open('/dev/tty', os.O_RDWR), termios.TIOCSTI, b'x')",
    "types_by_its_pipes": "for file in range(8): fcntl.ioctl(file, termios.TIOCSTI, b'x')",
    "writes_from_a_thread": """
        found = []
        thread = threading.Thread(target=lambda: found.append(open('/x', 'w')))
        hook, threading.excepthook = threading.excepthook, lambda *_: None
        thread.start(), thread.join()
        threading.excepthook = hook
        return bool(found)
    """,
    "writes_from_xla": "return jax.pure_callback(lambda x: open('/x', 'w'), dy, dy)",
    "starts_a_thousand_threads": """
        threading.stack_size(32768)
        for _ in range(1000):
            threading.Thread(target=time.sleep, args=(20,), daemon=True).start()""",
}  # fmt: skip

# These may run, and harm nothing outside their sandbox (checked from there).
HARMLESS = {
    "forks": "os.fork() or time.sleep(100)",
    "keeps_a_posix_queue": "call(240, b'x', 0o102, 0o666, None)",
    "keeps_memory_in_a_file": "os.memfd_create('x')",
    "starts_a_shell": "return os.system('true') == 0",
    "starts_a_process": "subprocess.run([sys.executable, '-c', ''])",
    "spawns": "os.posix_spawn(sys.executable, [], {})",
    "leaves_a_process": "os.fork() == 0 and time.sleep(1000)",
}
HARMLESS = {name: f"{code}\nreturn False" for name, code in HARMLESS.items()}

# Ways to the right passes and answers: each must raise, or return False, as nothing is there.
ANSWERS = {
    "reads_our_backward_pass": "return open('ROOT/jaxnets/backprop/relu.py').read()",
    "reads_the_solutions": "return open('ROOT/jaxnets/course/exercises/tasks.toml').read()",
    "imports_our_backward_pass": "import jaxnets.backprop.relu",
    "imports_the_judge": "import jaxnets.course.exercises.judge",
    "imports_the_catalogue": "importlib.import_module('jaxnets.course.exercises.catalogue')",
    "imports_by_a_name": "return __import__('jaxnets.backprop.relu').backprop.relu is not None",
    "imports_by_a_pattern": """
        match relu_backward:
            case object(__builtins__=found): pass
        return found['_' + '_import_' + '_']('jaxnets.backprop.dense', None, None, ['x'])
    """,
    "imports_by_an_attribute": """
        found = np.ma.core.operator.attrgetter('_' + '_builtins_' + '_')(relu_backward)
        return found['_' + '_import_' + '_']('jaxnets.backprop.dense', None, None, ['x'])
    """,
    "finds_our_passes_in_memory": """
        ours = 'jaxnets.backprop', 'layer_check', 'catalogue', 'judge', 'jaxnets.losses'
        return any(part in name for name in sys.modules for part in ours)
    """,
    "finds_our_passes_among_its_objects": """
        return any(
            getattr(found, '__module__', '').startswith('jaxnets.backprop')
            for found in gc.get_objects() if callable(found)
        )
    """,
    "finds_our_files": """
        return any(
            'backprop' in folders or 'tasks.toml' in files
            for _path, folders, files in os.walk('/')
        )
    """,
    "finds_another_library_s_autodiff": """
        found = []
        for name in ('torch', 'keras', 'tensorflow', 'autograd', 'flax', 'optax', 'sklearn'):
            try: found.append(importlib.import_module(name))
            except ImportError: pass
        return bool(found)
    """,
}

# These may run; what they aim at, the grader, is not where they look (checked from outside).
AIMS = {
    "traces_the_first_process": "call(101, 16, 1, 0, 0)",
    "changes_its_killer_s_order": "open('/proc/self/oom_score_adj', 'w').write('-1000')",
    "daemonises": "os.fork() and os._exit(0); os.setsid()",
    "forks_by_calls": """
        call(57)
        call(58)
        call(56, 17, 0, 0, 0, 0)
        call(435, (ctypes.c_uint64 * 11)(0, 0, 0, 0, 17), 88)
    """,
    "queues_a_signal": """
        info = (ctypes.c_int * 32)(9, 0, -1)
        libc.syscall(129, os.getppid(), 9, info)
        libc.syscall(297, os.getppid(), os.getppid(), 9, info)
    """,
    "signals_by_its_files": """
        for file in range(8):
            try:
                fcntl.fcntl(file, fcntl.F_SETOWN, os.getppid() or 1)
                fcntl.fcntl(file, fcntl.F_SETSIG, 9)
                fcntl.fcntl(file, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
            except OSError:
                pass
    """,
    "signals_all": """
        for pid in filter(str.isdigit, os.listdir('/proc')):
            if int(pid) != os.getpid(): libc.kill(int(pid), 9)
        libc.kill(-1, 9)
    """,
    "slows_the_parent": """
        libc.setpriority(0, os.getppid(), 19)
        libc.setpriority(1, 0, 19)
        libc.setpriority(2, os.getuid(), 19)
    """,
    "moves_the_parent": "for pid in range(3): libc.sched_setaffinity(pid, 8, b'1' + bytes(7))",
    "schedules_the_parent": "libc.sched_setscheduler(os.getppid(), 5, (ctypes.c_int * 1)(0))",
}
AIMS = {name: textwrap.dedent(code).strip() + "\nreturn False" for name, code in AIMS.items()}

# Ways to a derivative: each is refused or flagged. The right one is 2 * x.
DERIVES = """
    def derives(gradient):
        found = gradient(lambda x: (x * x).sum())(jnp.arange(3.0))
        return bool(jnp.allclose(jnp.asarray(found), 2 * jnp.arange(3.0)))
"""
AUTODIFF = {
    "grad": "return derives(jax.grad)",
    "vjp": "return derives(lambda f: lambda x: jax.vjp(f, x)[1](1.0)[0])",
    "jvp": "return jax.jvp(jnp.sin, (0.0,), (1.0,))[1] == 1",
    "linearize": "return jax.linearize(jnp.sin, 0.0)[1](1.0) == 1",
    "linear_transpose": "return jax.linear_transpose(lambda x: 2 * x, 1.0)(1.0)[0] == 2",
    "jacrev": "return derives(jax.jacrev)",
    "jacfwd": "return derives(jax.jacfwd)",
    "hessian": "return jax.hessian(lambda x: x * x)(1.0) == 2",
    "value_and_grad": "return derives(lambda f: lambda x: jax.value_and_grad(f)(x)[1])",
    "inside_jit": "return derives(lambda f: jax.jit(jax.grad(f)))",
    "inside_vmap": "return (jax.vmap(jax.grad(jnp.sin))(jnp.zeros(2)) == 1).all()",
    "in_a_callback": """
        return jax.pure_callback(jax.grad(jnp.sin), jnp.float32(0), jnp.float32(0)) == 1
    """,
    "in_a_thread": """
        found = []
        thread = threading.Thread(target=lambda: found.append(derives(jax.grad)))
        hook, threading.excepthook = threading.excepthook, lambda *_: None
        thread.start(), thread.join()
        threading.excepthook = hook
        return any(found)
    """,
    "through_a_setter": """
        def f(): pass
        functools.update_wrapper(f, jax, assigned=('grad',), updated=())
        return derives(f.grad)
    """,
    "through_globals": """
        def f(): pass
        functools.update_wrapper(f, jax.vmap, assigned=(), updated=('__globals__',))
        return derives(f.__globals__['grad'])
    """,
    "optimizes": """
        from jax.scipy.optimize import minimize
        return minimize(lambda x: (x * x).sum(), jnp.ones(2), method='BFGS').success
    """,
    "checkpointed": "return derives(lambda f: jax.grad(jax.checkpoint(f)))",
    "by_importlib": "return derives(importlib.import_module('jax._src.api').grad)",
}
# Those that the sandbox does not stop.
ROUND_THE_CHECKS = {
    "by_reloading": """
        sys.modules.pop('jax._src.interpreters.ad')
        return derives(importlib.reload(importlib.import_module('jax._src.api')).grad)
    """,
    "by_pickle": r"return derives(pickle.loads(b'cjax\ngrad\n.'))",
    "by_modules": """
        for module in list(sys.modules.values()):
            for name in ('grad', 'gradient', 'jacobian', 'egrad', 'elementwise_grad', 'backward'):
                try:
                    if derives(getattr(module, name)):
                        return True
                except BaseException:
                    pass
        return False
    """,
    "by_memory": """
        for found in gc.get_objects():
            if getattr(found, '__name__', '') in ('grad', 'jacrev', 'jacfwd', 'vjp'):
                try:
                    if derives(found):
                        return True
                except BaseException:
                    pass
        return False
    """,
    "finds_its_transformations": """
        names = 'JVPTrace', 'LinearizeTrace', 'backward_pass', 'JVPTracer', 'jvpfun'
        found = [thing for thing in gc.get_objects() if getattr(thing, '__qualname__', '') in names]
        return bool(found)
    """,
    "finds_a_rule": """
        from jax._src.lax import convolution, lax, slicing, windowed_reductions
        modules = (convolution, lax, slicing, windowed_reductions)
        return any(
            'jvp' in name or 'transpose_rule' in name or 'transpose_lhs' in name
            for module in modules for name in vars(module) if not name.startswith('__')
        )
    """,
    "of_a_function_with_its_own": "return jax.nn.relu.jvp is not None",
    "taylor_mode": "from jax.experimental.jet import jet",
}
AUTODIFF, ROUND_THE_CHECKS = (
    {name: textwrap.dedent(DERIVES) + textwrap.dedent(code) for name, code in some.items()}
    for some in (AUTODIFF, ROUND_THE_CHECKS)
)

# Each needs a sandbox of its own, and none may pass.
SELF = "import os, sys, time, signal, threading, ctypes"
WRITE = """
def write(content):
    for found in range(3, 64):
        try: os.write(found, content)
        except OSError: pass
"""
ENDS = {
    "prints_passed": "print('relu_backward: passed')\nreturn dy",
    "returns_passed": "return 'passed'",
    "returns_true": "return True",
    "returns_nothing": "pass",
    "returns_blank": "return ...",
    "returns_nan": "return dy * jnp.nan",
    "returns_complex": "return dy + 1j",
    "returns_another_shape": "return jnp.where(cache > 0, dy, 0)[None]",
    "returns_too_much": "return jnp.zeros((1 << 16, 1 << 16)) + dy.sum()",
    "at_ties_only": "return jnp.where(cache >= 0, dy, 0)",
    "patches_jax": "jnp.where = lambda *a: 0\nreturn dy",
    "recurses": "return relu_backward(cache, dy)",
    "overflows_the_stack": "ctypes.string_at(0)",
    "exits": "sys.exit(0)",
    "exits_at_once": "os._exit(0)",
    "kills_itself": "signal.raise_signal(9)",
    "stops_itself": "signal.raise_signal(19)",
    "aborts": "os.abort()",
    "raises_a_forged_line": "raise ValueError('x\\n\\x1b[2Jzoe  relu_backward  passed')",
    "loops": "while True: pass",
    "ignores_signals": """
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        while True: pass
    """,
    "sleeps": "time.sleep(10 ** 6)",
    "takes_memory": "x = [0]\nwhile True: x = x + x",
    "takes_memory_by_jax": "x = [jnp.ones((1 << 24))]\nwhile True: x.append(x[-1] + 1)",
    "computes_a_large_number": "return 9 ** 9 ** 9 ** 9 + dy",
    "starts_threads": "while True: threading.Thread(target=time.sleep, args=(999,)).start()",
    "bombs": """
        while True:
            try: os.fork()
            except OSError: pass
    """,
    "floods": "while True: write(b'x' * (1 << 20))",
    "answers_garbage": "write(b'passed\\n')\nos._exit(0)",
    "answers_65_axes": "write(b'{\"shapes\": [{\"x\": [' + b'1,' * 64 + b'1]}]}\\n')\nos._exit(0)",
    "answers_a_large_number": """
        write(b'{\"shapes\": [{\"x\": [' + b'9' * 5000 + b']}]}\\n')
        os._exit(0)
    """,
    "closes_its_answer": "os.closerange(0, 64)\ntime.sleep(1)",
}  # fmt: skip
