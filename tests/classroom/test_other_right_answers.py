"""A check must not refuse a right answer because it is written in another way than the solution."""

import pytest

from xlmr_course.classroom import proof
from xlmr_course.classroom.chapters import find

OTHERS = {
    ("01", "utf8-length"): [
        "def utf8_length(code_point):\n    return len(chr(code_point).encode())",
        "def utf8_length(code_point):\n"
        "    for size, last in enumerate((0x7F, 0x7FF, 0xFFFF), 1):\n"
        "        if code_point <= last:\n            return size\n    return 4",
    ],
    ("01", "same"): [
        "def same(a, b):\n    return unicodedata.normalize('NFKD', a) == unicodedata.normalize('NFKD', b)",
        "def same(a, b):\n    a, b = (unicodedata.normalize('NFKC', text) for text in (a, b))\n    return a == b",
        "def same(a, b):\n    return normalize(a) == normalize(b)\n\n\nnormalize = Normalizer()",
    ],
    ("01", "script-shares"): [
        "def script_shares(text):\n"
        "    names = [script(c) for c in text if script(c) != 'none']\n"
        "    return {name: names.count(name) / len(names) for name in sorted(set(names))}",
    ],
    ("01", "sampling"): [
        "import numpy as np\n\n\ndef sampling(sizes, alpha):\n"
        "    p = np.array(list(sizes.values()))\n    p = (p / p.sum()) ** alpha\n"
        "    return dict(zip(sizes, p / p.sum()))",
    ],
    ("01", "passes"): [
        "def passes(sizes, alpha, budget):\n"
        "    weights = {c: s**alpha for c, s in sizes.items()}\n    total = sum(weights.values())\n"
        "    return {c: weights[c] / total * budget / sizes[c] for c in sizes}",
    ],
    ("02", "score"): [
        "def score(pieces, log_probs):\n    total = 0\n    for piece in pieces:\n"
        "        total += log_probs[piece]\n    return total",
        "def score(pieces, log_probs):\n    return math.log(math.prod(math.exp(log_probs[p]) for p in pieces))",
    ],
    ("02", "viterbi"): [
        "def viterbi(word, log_probs):\n    return [node.piece for node in Lattice(word, log_probs).viterbi()[0]]",
        "def viterbi(word, log_probs):\n    best = {0: (0.0, [])}\n"
        "    for end in range(1, len(word) + 1):\n"
        "        ways = [(best[i][0] + log_probs[word[i:end]], best[i][1] + [word[i:end]])\n"
        "                for i in range(end) if word[i:end] in log_probs and i in best]\n"
        "        if ways:\n            best[end] = max(ways)\n    return best[len(word)][1]",
    ],
    ("02", "backward"): [
        "def backward_scores(word, log_probs):\n    return Lattice(word, log_probs).backward()",
        "def backward_scores(word, log_probs):\n    beta = [-math.inf] * len(word) + [0.0]\n"
        "    for start in range(len(word) - 1, -1, -1):\n        total = 0.0\n"
        "        for end in range(start + 1, len(word) + 1):\n"
        "            if word[start:end] in log_probs:\n"
        "                total += math.exp(log_probs[word[start:end]] + beta[end])\n"
        "        beta[start] = math.log(total)\n    return beta",
    ],
    ("02", "m-step"): [
        "def m_step(counts):\n    counts = {p: c for p, c in counts.items() if not c < 0.5}\n"
        "    return {p: digamma(c) - digamma(sum(counts.values())) for p, c in counts.items()}",
    ],
    ("03", "cost"): [
        "def relative_cost(pieces):\n    whole = {code: sum(counts) for code, counts in sorted(pieces.items())}\n"
        "    return {code: total / whole['en'] for code, total in whole.items()}",
    ],
    ("03", "ids"): [
        "def xlmr_ids(numbers):\n    return [0] + [{0: 3}.get(n, n + 1) for n in numbers] + [2]",
    ],
    ("03", "pair"): [
        "def pair_ids(first, second):\n    return [0] + first + [2, 2] + second + [2]",
    ],
    ("03", "cut"): [
        "def cut_pair(first, second, limit):\n    first, second = list(first), list(second)\n"
        "    while len(first) + len(second) + 4 > limit:\n"
        "        (first if len(first) >= len(second) else second).pop()\n    return first, second",
        "def cut_pair(first, second, limit):\n    room = max(limit - 4, 0)\n"
        "    a = min(len(first), max(room // 2, room - len(second)))\n"
        "    return first[:a], second[: room - a]",
    ],
    ("03", "undo"): [
        "def undo(tokens):\n    kept = [token for token in tokens if token not in {'<s>', '</s>', '<pad>'}]\n"
        "    text = ''.join(kept).replace('▁', ' ')\n    return text[1:] if text.startswith(' ') else text",
        "def undo(tokens):\n    return ''.join(t for t in tokens if t not in {'<s>', '</s>', '<pad>'})"
        ".replace('▁', ' ').strip()",
    ],
    ("04", "softmax"): [
        "def softmax(scores):\n    return scores.softmax(dim=-1)",
        "def softmax(scores):\n    return (scores - scores.logsumexp(dim=1, keepdim=True)).exp()",
    ],
    ("04", "scaled-scores"): [
        "def scaled_scores(q, k):\n    return torch.einsum('qd,kd->qk', q, k) * k.shape[1] ** -0.5",
    ],
    ("04", "padding-mask"): [
        "def masked_weights(scores, mask):\n    return (scores + (1.0 - mask[:, None, :]) * -1e9).softmax(-1)",
        "def masked_weights(scores, mask):\n"
        "    return torch.where(mask.bool().unsqueeze(1), scores, -torch.inf).softmax(-1)",
        "def masked_weights(scores, mask):\n    powers = (scores - scores.amax(-1, True)).exp() * mask[:, None]\n"
        "    return powers / powers.sum(-1, keepdim=True)",
    ],
    ("04", "split-heads"): [
        "def split_heads(x, heads):\n    b, t, h = x.shape\n"
        "    return x.view(b, t, heads, h // heads).permute(0, 2, 1, 3)",
        "def split_heads(x, heads):\n    return torch.stack(x.chunk(heads, dim=-1), dim=1)",
    ],
    ("04", "positions"): [
        "def position_ids(ids):\n    real = (ids != 1).int()\n    return (real.cumsum(1) + 1) * real + (1 - real)",
        "def position_ids(ids):\n    return ((ids != 1).cumsum(1) + 1).masked_fill(ids == 1, 1)",
    ],
    ("05", "layer-norm"): [
        "def layer_norm(x, gamma, beta, eps):\n    return F.layer_norm(x, x.shape[-1:], gamma, beta, eps)",
        "def layer_norm(x, gamma, beta, eps):\n    variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)\n"
        "    return (x - mean) * torch.rsqrt(variance + eps) * gamma + beta",
    ],
    ("05", "add-and-norm"): [
        "def add_and_norm(x, f, norm):\n    x = f(x) + x\n    return norm(x)",
    ],
    ("05", "first-wrong"): [
        "def first_wrong(ours, theirs, tolerance=1e-4):\n"
        "    wrong = [i for i, (a, b) in enumerate(zip(ours, theirs)) if (a - b).abs().max().item() > tolerance]\n"
        "    return wrong[0] if wrong else None",
        "def first_wrong(ours, theirs, tolerance=1e-4):\n"
        "    return next((i for i in range(len(ours))\n"
        "                 if not torch.allclose(ours[i], theirs[i], rtol=0, atol=tolerance)), None)",
    ],
    ("05", "count"): [
        "def layer_parameters(hidden, ffn):\n    return 4 * hidden**2 + 9 * hidden + 2 * hidden * ffn + ffn",
        "def layer_parameters(hidden, ffn):\n"
        "    sizes = {'hidden_size': hidden, 'intermediate_size': ffn, 'num_hidden_layers': 1}\n"
        "    shape = XLMRConfig(**sizes, num_attention_heads=2)\n"
        "    return sum(p.numel() for p in Encoder(shape, device='meta').layers.parameters())",
    ],
    ("06", "mask"): [
        "def mask(ids, random_ids, chance, fate):\n    chosen = (chance < 0.15) & ~torch.isin(ids, SPECIAL)\n"
        "    inputs, labels = ids.clone(), torch.full_like(ids, -100)\n    labels[chosen] = ids[chosen]\n"
        "    inputs[chosen & (fate < 0.8)] = MASK\n    swap = chosen & (fate >= 0.8) & (fate < 0.9)\n"
        "    inputs[swap] = random_ids[swap]\n    return inputs, labels",
    ],
    ("06", "decoder"): [
        "def decode(x, words, bias):\n    return F.linear(x, words, bias)",
        "def decode(x, words, bias):\n    return torch.einsum('mh,vh->mv', x, words) + bias[None]",
    ],
    ("06", "mlm-loss"): [
        "def mlm_loss(logits, labels):\n    return F.cross_entropy(logits.transpose(1, 2), labels)",
        "def mlm_loss(logits, labels):\n    chosen = labels != -100\n"
        "    scores = logits[chosen].log_softmax(-1)\n"
        "    return -scores[torch.arange(len(scores)), labels[chosen]].mean().item()",
    ],
    ("06", "perplexity"): [
        "def perplexity(losses, counts):\n    losses, counts = torch.tensor(losses), torch.tensor(counts)\n"
        "    return ((losses * counts).sum() / counts.sum()).exp().item()",
    ],
    ("09", "neighbour"): [
        "def neighbour_weight(weights, offset):\n    n = weights.shape[-1]\n"
        "    places = [(i, i + offset) for i in range(n) if 0 <= i + offset < n]\n"
        "    return torch.stack([weights[:, i, j] for i, j in places]).mean(0)",
    ],
    ("09", "handed-over"): [
        "def handed_over(weights, values):\n"
        "    brought = (weights[:, :, None] * values[None]).norm(dim=-1)\n"
        "    return brought / brought.sum(1, keepdim=True)",
    ],
    ("09", "mean-pool"): [
        "def mean_pool(states, mask):\n"
        "    return torch.stack([state[keep.bool()].mean(0) for state, keep in zip(states, mask)])",
    ],
    ("09", "retrieval"): [
        "def retrieval(queries, others):\n"
        "    cosines = F.cosine_similarity(queries[:, None], others[None], dim=-1)\n"
        "    return sum(int(row.argmax()) == i for i, row in enumerate(cosines)) / len(queries)",
    ],
    ("09", "centre"): [
        "def centre(vectors, languages):\n"
        "    means = {code: vectors[[i for i, c in enumerate(languages) if c == code]].mean(0) for code in languages}\n"
        "    return torch.stack([vector - means[code] for vector, code in zip(vectors, languages)])",
    ],
    ("10", "parameters"): [
        "def parameters(config):\n"
        "    return sum(p.numel() for p in MaskedLM(Encoder(config, device='meta')).parameters())",
    ],
    ("10", "training-memory"): [
        "def training_memory(trained, frozen=0, mixed=True):\n"
        "    weights, gradients, adam = 4 * (trained + frozen), 4 * trained, 8 * trained\n"
        "    return (weights + gradients + adam + 2 * trained * mixed) / 10**9",
    ],
    ("10", "load"): [
        "def fit(file, wanted):\n    found, problems = {}, []\n    for name, shape in wanted.items():\n"
        "        tensor = file.get(name, file.get('roberta.' + name))\n"
        "        if tensor is None or tensor.shape != torch.Size(shape):\n            problems.append(name)\n"
        "        else:\n            found[name] = tensor\n    return found, problems",
    ],
    ("10", "fill-mask"): [
        "def fill(ids, scores, tokens, mask_id, k=5):\n    p = scores.softmax(-1)[ids.index(mask_id)]\n"
        "    best = sorted(range(len(tokens)), key=lambda i: -p[i])[:k]\n"
        "    return [(tokens[i].replace('▁', ''), float(p[i])) for i in best]",
    ],
    ("10", "association"): [
        "def association(she, he, she_before, he_before):\n    return math.log((she / he) / (she_before / he_before))",
    ],
    ("11", "schedule"): [
        "def schedule(step, steps, rise):\n    if step < rise:\n        return (step + 1) / rise\n"
        "    return 1 - (step - rise) / (steps - rise)",
    ],
    ("11", "padded-share"): [
        "def padded_share(lengths):\n    width = max(lengths)\n"
        "    return sum(width - n for n in lengths) / (width * len(lengths))",
    ],
    ("11", "wins"): [
        "def wins(first, second):\n    kinds = Counter(zip(first, second))\n"
        "    return kinds[True, False], kinds[False, True]",
    ],
    ("11", "transfer"): [
        "def transfer(accuracies, trained):\n    others = [accuracies[c] for c in set(accuracies) - trained]\n"
        "    return math.fsum(others) / len(others)",
    ],
    ("11", "gap"): [
        "def largest_gap(accuracies, source):\n"
        "    loses = {c: accuracies[source] - a for c, a in accuracies.items() if c != source}\n"
        "    return max(loses.items(), key=lambda item: item[1])",
    ],
    ("11", "rank-correlation"): [
        "def rank_correlation(x, y):\n    from scipy.stats import spearmanr\n\n"
        "    return float(spearmanr(x, y).statistic)",
    ],
}


@pytest.mark.parametrize("number", sorted({number for number, _ in OTHERS}))
def test_other_right_answers_pass_visible_and_hidden_checks(number):
    chapter = find([number])[0]
    setup = proof.setup_code(chapter)
    exercises = {exercise.name: exercise for exercise in proof.exercises(chapter)}
    for (of, name), answers in OTHERS.items():
        if of == number:
            for answer in answers:
                assert proof.outcome(exercises[name], answer, setup) == "passed", answer
