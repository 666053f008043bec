"Manners of the commands: mistakes, last lines, logs, advice for few labels"
import inspect,subprocess
import numpy as np,pytest
from fastcore.test import test_eq
from prp_fastai.all import *
from test_cli import bin,fork,forked,labelled_folder
from test_docs import public

@pytest.fixture(scope='module')
def labelled(video_folder, tmp_path_factory):
    "Twelve videos of two classes, an encoder that has learned from all of them, and one that has not"
    path = tmp_path_factory.mktemp('labelled')
    videos = labelled_folder(path/'videos', video_folder)
    learn = prp_learner(PRPDataLoaders.from_folder(videos, rates=(1,2), size=24, bs=4, num_workers=0), width=.05)
    seen = learn.save_encoder(path/'seen.safetensors')
    card = {**read_card(seen), 'seen': []}
    return videos,seen,save_model(learn.model.encoder, path/'unseen.safetensors', card)

@pytest.mark.parametrize('args,says', [
    (('prp-scan','nowhere'), 'prp-scan: nowhere: no such folder or list'),
    (('prp-pretrain','sample','--rates','1,x'), 'prp-pretrain: rates must be ascending'),
    (('prp-finetune','sample','--encoder','nothing.safetensors'), 'prp-finetune: '),
    (('prp-test','nowhere'), 'prp-test: nowhere holds no run of prp-finetune')])
def test_a_mistake_is_one_sentence_and_code_2(args, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code,said = forked(*args)
    assert code==2 and said.startswith(says) and said.count('\n')==1

@pytest.mark.parametrize('name', ['prp-retrieve','prp-probe'])
def test_seen_videos_are_refused_in_the_words_of_the_shell(name, labelled, tmp_path):
    videos,seen,unseen = labelled
    small = ('--out',tmp_path/'out','--num-workers',0)
    code,said = forked(name, videos, seen, *small)
    assert code==2 and '--allow-seen' in said and 'allow_seen' not in said and 'Traceback' not in said
    fork(name, videos, seen, '--allow-seen', *small)
    fork(name, videos, unseen, *small)

def test_a_fault_of_the_program_keeps_its_traceback():
    @command()
    def halve(
        n:str, # A number
    ):
        "Raise what numpy raises"
        np.random.default_rng(0).choice(3, 5, replace=False)
    with pytest.raises(ValueError, match='larger sample'): run_command(halve, halve.parser(), ['1'])

def test_nothing_is_said_before_the_command_begins(monkeypatch):
    for o in ('PYTHONWARNINGS','MPLBACKEND'): monkeypatch.delenv(o, raising=False)
    res = subprocess.run([bin/'prp-scan', '--help'], capture_output=True, text=True)
    assert res.returncode==0 and not res.stderr

def test_commands_from_scan_to_retrieval(labelled, tmp_path, monkeypatch):
    "Logs have lines, no bars; the last lines say what was written and what may come next"
    monkeypatch.chdir(tmp_path)
    videos,_,unseen = labelled
    small = ('--num-workers',0)
    said = {}
    said['scan'] = fork('prp-scan', videos, '--manifest', 'm.csv')
    said['cache'] = fork('prp-cache', videos, 'cache', '--size', 24)
    said['pretrain'] = fork('prp-pretrain', videos, '--width', .05, '--size', 24, '--epochs', 1, '--bs', 3, *small)
    said['finetune'] = fork('prp-finetune', videos, '--encoder', unseen, '--epochs', 1, '--bs', 2, '--balance', 'loss', *small)
    said['probe'] = fork('prp-probe', videos, unseen, '--clips', 2, *small)
    said['retrieve'] = fork('prp-retrieve', videos, unseen, '--shown', 1, *small)
    said['figures'] = fork('prp-figures', videos, unseen, '--videos', 2, '--shown', 1)
    for name,text in said.items():
        wrote,then = text.splitlines()[-2:]
        assert wrote.startswith('written: ') and then.startswith('next: prp-'), (name, text)
        assert (tmp_path/wrote.removeprefix('written: ')).exists()
        assert '█' not in text and '\r' not in text, name
    assert 'seconds a batch of 3: about a minute for 1 epochs' in said['pretrain']
    text = said['finetune']
    assert 'test videos are few: an accuracy may be off by' in text
    assert 'videos to train and validate on are few' in text and 'Without fine-tuning, accuracy' in text
    assert all(o in text for o in ('train','valid','test')) and load_model('finetuned/model.safetensors').dls.vocab==['a','b']

def test_balance_and_share_of_few_videos(labelled, tmp_path):
    videos,*_ = labelled
    small = dict(width=.05, size=24, epochs=1, bs=2, num_workers=0, clips=1)
    prp_finetune(str(videos), out=str(tmp_path/'a'), balance='sampler', **small)
    with pytest.raises(ValueError, match="how must be 'loss' or 'sampler'"): prp_finetune(str(videos), out=str(tmp_path/'b'), balance='weights', **small)
    with pytest.raises(TypeError, match="unexpected argument 'colour'"): prp_finetune(str(videos), colour=1)

def test_demo_help_names_its_folder_by_place(): test_eq(vars(prp_demo.parser().parse_args(['pictures'])), dict(out='pictures'))

def test_no_public_function_has_more_than_fifteen_parameters_of_its_own():
    def own(f):
        code = inspect.unwrap(getattr(f, '__func__', f)).__code__
        return code.co_argcount+code.co_kwonlyargcount
    functions = {k: o for k,o in public() if inspect.isfunction(o)}
    for k,o in public():
        if inspect.isclass(o) and not hasattr(o, '__dataclass_fields__'): functions |= {f'{k}.{n}': f for n,f in vars(o).items() if inspect.isfunction(getattr(f, '__func__', f))}
    assert len(functions)>200 and not {k: own(f) for k,f in functions.items() if own(f)>15}
