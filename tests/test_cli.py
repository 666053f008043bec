"The commands, as the shell runs them"
import json,subprocess,sys
from pathlib import Path
import pandas as pd,pytest
from prp_fastai.all import *

bin = Path(sys.executable).parent
def run(*args, ok=True, **kwargs):
    res = subprocess.run([str(bin/args[0]), *map(str, args[1:])], capture_output=True, text=True, **kwargs)
    assert (res.returncode==0)==ok, res.stdout+res.stderr
    return res.stdout+res.stderr

def test_pretrain_leaves_what_it_says(video_folder, tmp_path):
    said = run('prp-pretrain', video_folder, '--out', tmp_path/'run', '--width', .05, '--size', 32, '--epochs', 2, '--bs', 4, '--lr', .02, '--by-group', cwd=tmp_path)
    assert 'rate accuracy' in said and 'chance is 0.250' in said and 'valid_loss_g' in said
    history = pd.read_csv(tmp_path/'run/history.csv')
    assert len(history)==2 and {'train_loss','valid_loss','valid_rate_accuracy','train_loss_d','valid_loss_g'}<=set(history)
    how = json.loads((tmp_path/'run/settings.json').read_text())
    assert how['settings']['lr']==.02 and how['settings']['seed']==42 and how['packages']['torch'] and 'git_revision' in how
    assert load_encoder(tmp_path/'run/encoder.safetensors')
    assert (tmp_path/'run/last.pth').exists() and (tmp_path/'run/results.png').stat().st_size>1000

def test_pretrain_from_list_and_table(video_folder, tmp_path):
    names = [o.name for o in get_video_files(video_folder)]
    (tmp_path/'train.txt').write_text('\n'.join(names[:8])); (tmp_path/'valid.txt').write_text('\n'.join(names[8:]))
    (tmp_path/'train.csv').write_text('\n'.join(['path', *names[:8]]))
    small = ('--root', video_folder, '--valid', tmp_path/'valid.txt', '--width', .05, '--size', 32, '--epochs', 1, '--bs', 4, '--encoder', 'r3d', '--heads', 'recon')
    for o in ('txt','csv'): assert '8 videos to train on, 4 to validate on' in run('prp-pretrain', tmp_path/f'train.{o}', '--out', tmp_path/o, *small)

def test_provenance_without_git(monkeypatch):
    assert provenance({})['git_revision']
    monkeypatch.setenv('PATH', '')
    assert provenance({})['git_revision'] is None

def test_help_has_every_setting_of_the_paper():
    said = run('prp-pretrain', '--help')
    for o in ('encoder','width','heads','rates','clip-len','recon-rate','size','lambda-d','lambda-g','epochs','lr','mom','wd','schedule','bs','seed'): assert f'--{o}' in said, o

@pytest.mark.parametrize('args,says', [(['nowhere'], 'no such folder or list'), (['sample','--rates','1,3'], 'powers of two'), (['sample','--encoder','resnet'], 'no encoder'),
                                       (['sample','--schedule','cosine'], 'schedule must be')])
def test_bad_settings_are_one_sentence_before_anything_runs(tmp_path, args, says):
    said = run('prp-pretrain', *args, '--out', tmp_path/'run', ok=False)
    assert says in said and not (tmp_path/'run/history.csv').exists()

def test_demo_says_what_it_told_and_where_the_pictures_are(tmp_path):
    said = run('prp-demo', 'pictures', '--epochs', 1, cwd=tmp_path)
    assert 'Playback rates told in 8 clips of each of 15 videos' in said and 'chance: 0.250' in said
    for o in ('rates','results','activations'): assert f'pictures/{o}.png' in said and (tmp_path/f'pictures/{o}.png').stat().st_size>1000
