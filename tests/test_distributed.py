"Two processes on the CPU do what one does with batches of twice the size"
import socket,subprocess,sys
import pytest,torch
from prp_fastai.all import *
from prp_fastai.distributed import _sum_metric

job = Path(__file__).with_name('shared_job.py')
env = {**os.environ, 'OMP_NUM_THREADS':'1', 'PYTHONPATH':str(job.parent.parent)}

def run(*cmds):
    "Run commands side by side, and say what went wrong where one fails"
    ps = [subprocess.Popen([sys.executable, *map(str, o)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for o in cmds]
    for p in ps: assert not (said := p.communicate(timeout=300)[1], p.returncode)[1], said[-3000:]

@pytest.fixture(scope='module')
def both(tmp_path_factory):
    "What one process found with batches of 8, and each of two with batches of 4"
    one,two = (tmp_path_factory.mktemp(o) for o in ('one','two'))
    run([job, 'train', one, 8], ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', 2, job, 'train', two, 4])
    a,*b = [torch.load(o, weights_only=False) for o in (one/'0.pt', two/'0.pt', two/'1.pt')]
    return one,two,a,b

def close(a, b): torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)

def close_weights(a, b):
    "Within two hundredths of each tensor's norm: steps turn the noise of a sum in another order into thousandths of single weights"
    assert a.keys()==b.keys()
    for k in a: assert (a[k]-b[k]).float().norm() <= .02*b[k].float().norm()+2e-4, k

def test_every_item_is_dealt_once():
    for n,size in itertools.product(range(12), range(1, 5)):
        assert L(dealt_items(n, r, size) for r in range(size)).concat()==list(range(n))
        dealt = [dealt_batches(n, 2, r, size) for r in range(size)]
        assert sorted(L(dealt).concat())==list(range(n//(2*size)*2*size)) and len(set(map(len, dealt)))==1

def test_a_metric_that_cannot_be_added_is_refused():
    with pytest.raises(TypeError, match='the metric avg_smooth_loss cannot be combined'): _sum_metric(AvgSmoothLoss())

def test_losses_metrics_and_weights_are_those_of_one_process(both):
    _,_,a,b = both
    for o in b:
        close(tensor(o['losses']), tensor(a['losses']))
        close(tensor(o['values']), tensor(a['values']))
        close(tensor(o['validated']), tensor(a['validated']))
        close_weights(o['model'], a['model'])
    assert len(a['values'])==3 and len(a['losses'])==6
    assert b[0]['values']==b[1]['values']

def test_predictions_are_whole_and_in_order(both):
    _,_,a,b = both
    for o in b:
        for k in ('preds','preds 7','preds 1'): close(o[k], a[k])
    assert len(a['preds'][2])==5 and len(a['preds 7'][0])==7 and len(a['preds 1'][0])==1

def test_uneven_validation_counts_every_item_once(both):
    _,_,a,b = both
    for o,k in itertools.product(b, ('kept 7','kept 1')):
        for x,y in zip(o[k], a[k]): close({n: float(x[n]) for n in x if n!='time'}, {n: float(y[n]) for n in y if n!='time'})

def test_draws_do_not_depend_on_processes_and_workers(both):
    _,_,a,b = both
    for i in range(3): assert [x+y for x,y in zip(b[0]['played'][i], b[1]['played'][i])]==a['played'][i]
    assert a['played'][0]==a['played'][1] and a['played'][1][1:]==a['played'][2]

def test_the_first_process_writes_and_the_model_is_ordinary_again(both):
    one,two,a,b = both
    assert a['classes']==b[0]['classes']==b[1]['classes'] and 'BatchNorm3d' in a['classes']
    assert [o['wrote'] for o in (a,*b)]==[True,True,False]
    assert (two/'0.safetensors').exists() and not (two/'1.safetensors').exists()
    assert len(pd.read_csv(two/'history.csv'))==len(pd.read_csv(one/'history.csv'))==3
    close_weights(*(load_encoder(o/'encoder.safetensors').state_dict() for o in (one,two)))
    close(*(torch.load(o/'7/models/best.pth') for o in (one,two)))
    assert sorted(o.name for o in (two/'7/models').iterdir())==sorted(o.name for o in (one/'7/models').iterdir())

def test_without_sync_the_model_is_the_same_in_both_processes(both):
    *_,a,b = both
    assert b[0]['apart']==b[1]['apart'] and tensor(b[0]['apart']).isfinite().all()
    assert all(x.equal(y) for x,y in zip(b[0]['buffers'], b[1]['buffers']))
    assert not torch.allclose(tensor(a['apart']), tensor(b[0]['apart']), rtol=1e-3, atol=1e-4)

def test_a_process_that_is_killed_stops_the_other(tmp_path):
    with socket.socket() as s: port = s.bind(('127.0.0.1', 0)) or s.getsockname()[1]
    where = dict(WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    ps = [subprocess.Popen([sys.executable, job, 'forever', tmp_path, '4'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                           env={**env, **where, 'RANK':str(i), 'LOCAL_RANK':str(i)}) for i in range(2)]
    try:
        assert ps[1].stdout.readline()=='a step\n', ps[1].communicate()[1]
        ps[1].kill()
        said = ps[0].communicate(timeout=180)[1]
        assert ps[0].returncode==1
        assert said.strip().endswith('ProcessEnded: another process of this run has ended or hangs; its own output says why'), said
    finally:
        for p in ps: p.kill(); p.wait()

def test_a_run_of_two_that_one_was_told_to_stop_goes_on_to_the_same_numbers(both):
    *_,a,b = both
    for o in (a,*b): assert len(o['unbroken'])==2 and [*map(list, o['resumed'])]==[*map(list, o['unbroken'])]
    close(tensor(a['resumed']), tensor(b[0]['resumed']))
    for o in (a,*b): assert torch.equal(*o['drawn'])
    assert not torch.equal(b[0]['drawn'][0], b[1]['drawn'][0])

def test_speed_ups_leave_the_numbers_of_two_processes(both):
    *_,a,b = both
    for o in (a,*b): torch.testing.assert_close(tensor([list(v) for v in o['recomputed']]), tensor([list(v) for v in o['unbroken']]), rtol=1e-3, atol=1e-4)
