import os,signal,time
import matplotlib,numpy as np,pytest,torch
matplotlib.use('Agg')
from fastai.vision.all import set_seed
from prp_fastai.read import write_video

@pytest.fixture(autouse=True)
def seeded(): set_seed(0)

def pattern(n, h=48, w=64, seed=0):
    "A video whose frames all differ: a smooth random picture that shifts, (3,n,h,w) uint8"
    rng = np.random.default_rng(seed)
    big = torch.nn.functional.interpolate(torch.from_numpy(rng.random((1,3,12,16))).float(), size=(h+2*n, w+2*n), mode='bilinear')[0]
    return torch.stack([big[:,i:i+h,2*i:2*i+w] for i in range(n)], 1).mul(255).byte()

@pytest.fixture(scope='session')
def video_folder(tmp_path_factory):
    "Twelve videos of 150 frames, long enough for every rate"
    path = tmp_path_factory.mktemp('videos')
    for i in range(12): write_video(path/f'v_Move_g{i//3+1:02}_c{i%3+1:02}.mp4', pattern(150, 32, 44, seed=i), crf=20, threads=1)
    return path

def killed(f, after):
    "Run `f` in a process of its own, and kill that and all that it started where it takes more than `after` seconds; the seconds it took"
    start,pid = time.perf_counter(),os.fork()
    if not pid:
        os.setsid()
        try: f()
        finally: os._exit(0)
    while time.perf_counter()-start<after:
        if os.waitpid(pid, os.WNOHANG)[0]: return time.perf_counter()-start
        time.sleep(.002)
    try: os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError: os.kill(pid, signal.SIGKILL) # It has not come to `setsid` yet
    os.waitpid(pid, 0)
    return after

def pytest_pycollect_makeitem(collector, name, obj):
    "fastcore's `test_eq` and its kin come with `import *`; they are no tests"
    if name.startswith('test') and getattr(obj, '__module__', '').startswith(('fastcore','fastai')): return []

@pytest.fixture(autouse=True, scope='session')
def own_cache(tmp_path_factory):
    "Manifests of test videos stay out of the user's cache folder"
    with pytest.MonkeyPatch.context() as m:
        m.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
        yield
