"""For test_solutions.py: five lessons of phases 7 and 8, drawn at random (three and two)."""

# lesson, title of the region, what the learner typed, and the claim that must fail
WRONG = [
    # the mask of the last tokens only: a token sees those that come after it
    (
        "07/09",
        "GPT-2",
        """
        x = self.dropout(self.positions(self.tokens(tokens), start))
        end = start + tokens.shape[1]
        mask = torch.ones(tokens.shape[1], end, dtype=torch.bool, device=x.device)
        return self.encoder(x, mask) @ self.tokens.weight.T
        """,
        "logits",
    ),
    # the loss compares each prediction with the token that was read, not with the next one
    (
        "07/09",
        "The loss of a text",
        """
        logits = model(texts[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), texts[:, :-1].flatten())
        """,
        "at-once",
    ),
    # one bias for each layer is forgotten
    (
        "07/09",
        "Count the parameters",
        """
        tables = (vocab + context) * dim
        attention = 4 * dim**2
        feed_forward = 2 * 4 * dim**2 + 4 * dim + dim
        return tables, n_layers * (attention + feed_forward + 4 * dim) + 2 * dim
        """,
        "by-hand",
    ),
    # the token that crosses top_p is left out
    (
        "07/10",
        "What may be drawn",
        """
        logits = logits / temperature
        if top_k > 0:
            last_kept = logits.topk(min(top_k, logits.shape[1]), dim=1).values[:, -1:]
            logits = logits.masked_fill(logits < last_kept, -torch.inf)
        ordered, order = logits.sort(dim=1, descending=True)
        gone = ordered.softmax(dim=1).cumsum(dim=1) > top_p
        gone[:, 0] = False
        return logits.masked_fill(gone.gather(1, order.argsort(dim=1)), -torch.inf)
        """,
        "same",
    ),
    # keys are kept, but each new token stands at position 0
    (
        "07/10",
        "Write with a cache",
        """
        texts = prompt
        new = prompt
        with kv_cache(model):
            for _ in range(length):
                new = choose(model(new)[:, -1])
                texts = torch.cat([texts, new], dim=1)
        return texts
        """,
        "tokens",
    ),
    # the texts follow the beams, what was kept does not
    (
        "07/10",
        "Beams with a cache",
        """
        texts = prompt
        new = prompt
        scores = torch.zeros(1, device=prompt.device)
        with kv_cache(model) as kept:
            for _ in range(length):
                logits = model(new, start=texts.shape[1] - new.shape[1])[:, -1]
                totals = scores[:, None] + logits.log_softmax(dim=1)
                scores, best = totals.flatten().topk(min(width, totals.numel()))
                rows = best // totals.shape[1]
                new = (best % totals.shape[1])[:, None]
                texts = torch.cat([texts[rows], new], dim=1)
                for layer in kept:
                    layer.kept = layer.kept[:1].expand(len(rows), -1, -1)
        return texts, scores
        """,
        "beams",
    ),
    # the merge that is first in the word, not the one that was learned first
    (
        "07/project-translation",
        "Cut a word",
        """
        symbols = list(word)
        known = set(merges)
        while True:
            fitting = [pair for pair in pairwise(symbols) if pair in known]
            if not fitting:
                return symbols
            symbols = merge(symbols, fitting[0])
        """,
        "pieces",
    ),
    # every match counts, however often the reference has it
    (
        "07/project-translation",
        "BLEU",
        """
        logs = 0.0
        words = sum(len(sentences.bleu_words(each)) for each in translations)
        wanted = sum(len(sentences.bleu_words(each)) for each in references)
        smallest = 1.0
        for n in range(1, 5):
            match = 0
            total = 0
            for translation, reference in zip(translations, references):
                ours = sentences.bleu_words(translation)
                theirs = sentences.bleu_words(reference)
                known = set(zip(*(theirs[i:] for i in range(n))))
                grams = list(zip(*(ours[i:] for i in range(n))))
                match += sum(gram in known for gram in grams)
                total += len(grams)
            if total == 0:
                return 0.0
            if match == 0:
                smallest = smallest / 2
                match = smallest
            logs += math.log(match / total)
        return 100 * math.exp(logs / 4 + min(0.0, 1 - wanted / words))
        """,
        "by-hand",
    ),
    # the last batch is forgotten
    (
        "07/project-translation",
        "Batches by length",
        """
        order = torch.randperm(len(lengths), generator=generator)
        order = order[lengths[order].argsort(stable=True)]
        batches = []
        start = 0
        for stop, length in enumerate(lengths[order].tolist()):
            if stop > start and (stop + 1 - start) * length > most:
                batches.append(order[start:stop])
                start = stop
        chosen = torch.randperm(len(batches), generator=generator)
        return [batches[number] for number in chosen]
        """,
        "by-length",
    ),
    # the standard deviation in place of the variance
    (
        "08/05",
        "The KL divergence",
        """
        sd = (log_var / 2).exp()
        return ((mean.square() + sd - 1 - log_var) / 2).sum(dim=-1)
        """,
        "by-hand",
    ),
    # the noise is not stretched
    (
        "08/05",
        "The reparameterisation",
        "return mean + log_var.exp() * torch.randn_like(mean)",
        "loss",
    ),
    # the gradient passes through the sample as well
    (
        "08/05",
        "The score-function estimator",
        """
        z = sample_latent(mean, log_var)
        return (f(z) * log_normal(z, mean, log_var)).mean()
        """,
        "unbiased",
    ),
    # the noise of the forward step, where that of the step back belongs
    (
        "08/06",
        "One step back, if x_0 is known",
        """
        alpha = alpha_bar[t] / alpha_bar[t - 1]
        beta = 1 - alpha
        mean = alpha_bar[t - 1].sqrt() * beta * x_0 + alpha.sqrt() * (1 - alpha_bar[t - 1]) * x
        return mean / (1 - alpha_bar[t]), beta
        """,
        "back",
    ),
    # every centre counts alike, however near it is
    (
        "08/06",
        "The mean of all x_0 that fit",
        """
        variance = (a * self.sd) ** 2 + b**2
        offset = x[:, None] - a * self.centres
        means = self.centres + a * self.sd**2 / variance * offset
        return (self.weights[:, None] * means).sum(dim=1)
        """,
        "guess",
    ),
    # the last step stops at time 1 / steps
    (
        "08/06",
        "Follow the velocity",
        """
        path = [x]
        for number in range(steps, 1, -1):
            time = number / steps
            x = x - velocity(x, denoise(x, 1 - time, time), time) / steps
            path.append(x)
        return path
        """,
        "flow-by-hand",
    ),
]

# right, but otherwise than the lesson has it
RIGHT = [
    (
        "07/09",
        "GPT-2",
        """
        seen = start + torch.arange(tokens.shape[1], device=tokens.device)
        earlier = torch.arange(start + tokens.shape[1], device=tokens.device)
        hidden = self.dropout(self.positions(self.tokens(tokens), start))
        hidden = self.encoder(hidden, earlier <= seen[:, None])
        return F.linear(hidden, self.tokens.weight)
        """,
    ),
    (
        "07/09",
        "The loss of a text",
        """
        log_p = model(texts[:, :-1]).log_softmax(dim=-1)
        return -log_p.gather(2, texts[:, 1:, None]).mean()
        """,
    ),
    (
        "07/09",
        "Count the parameters",
        "return (vocab + context) * dim, n_layers * (12 * dim * dim + 13 * dim) + 2 * dim",
    ),
    (
        "07/10",
        "What may be drawn",
        """
        logits = logits / temperature
        kept = torch.full_like(logits, -torch.inf)
        for row, new in zip(logits, kept):
            order = row.argsort(descending=True)
            if top_k:
                order = order[:top_k]
            p = row[order].softmax(dim=0)
            total = 0.0
            for token, share in zip(order, p):
                new[token] = row[token]
                total += share
                if total >= top_p:
                    break
        return kept
        """,
    ),
    (
        "07/10",
        "Write with a cache",
        """
        with kv_cache(model):
            texts = prompt
            logits = model(prompt)
            for step in range(length):
                token = choose(logits[:, -1])
                texts = torch.cat([texts, token], dim=1)
                if step + 1 < length:
                    logits = model(token, start=texts.shape[1] - 1)
            return texts
        """,
    ),
    (
        "07/10",
        "Remember",
        """
        new = self.linear(x)
        self.kept = new if self.kept is None else torch.cat((self.kept, new), 1)
        return self.kept
        """,
    ),
    (
        "07/project-translation",
        "What belongs together",
        """
        pieces = {word: list(word) for word in words}
        merges = []
        while len(merges) < most:
            counts = Counter()
            for word, symbols in pieces.items():
                for pair in zip(symbols, symbols[1:]):
                    counts[pair] += words[word]
            if not counts or max(counts.values()) < 2:
                break
            merges.append(min(counts, key=lambda pair: (-counts[pair], pair)))
            pieces = {word: merge(symbols, merges[-1]) for word, symbols in pieces.items()}
        return merges
        """,
    ),
    (
        "07/project-translation",
        "Cut a word",
        """
        symbols = list(word)
        for pair in merges:
            symbols = merge(symbols, pair)
        return symbols
        """,
    ),
    (
        "07/project-translation",
        "Batches by length",
        """
        noise = torch.rand(len(lengths), generator=generator, dtype=torch.float64)
        batches = [[]]
        for number in (lengths + noise).argsort().tolist():
            if batches[-1] and (len(batches[-1]) + 1) * lengths[number] > most:
                batches.append([])
            batches[-1].append(number)
        order = torch.randperm(len(batches), generator=generator).tolist()
        return [torch.tensor(batches[number]) for number in order]
        """,
    ),
    (
        "08/05",
        "The log density",
        """
        spread = torch.distributions.Normal(mean, (log_var / 2).exp())
        return spread.log_prob(x).sum(dim=-1)
        """,
    ),
    (
        "08/05",
        "The KL divergence",
        "return 0.5 * (mean**2 + log_var.expm1() - log_var).sum(-1)",
    ),
    (
        "08/05",
        "The reparameterisation",
        "return torch.distributions.Normal(mean, log_var.exp().sqrt()).rsample()",
    ),
    (
        "08/06",
        "The linear schedule",
        """
        alpha_bar = [torch.ones((), dtype=torch.float64)]
        for number in range(steps):
            beta = (0.1 + 19.9 * number / (steps - 1)) / steps
            alpha_bar.append(alpha_bar[-1] * (1 - beta))
        return torch.stack(alpha_bar)
        """,
    ),
    (
        "08/06",
        "The chain of steps back",
        """
        path = [x]
        for t in reversed(range(1, len(alpha_bar))):
            known = denoise(path[-1], *amounts(t, alpha_bar))
            mean, variance = posterior(path[-1], known, t, alpha_bar)
            path.append(torch.randn_like(mean) * variance**0.5 + mean)
        return path
        """,
    ),
    (
        "08/06",
        "Follow the velocity",
        """
        path = [x]
        for time in torch.linspace(1, 1 / steps, steps).tolist():
            speed = velocity(path[-1], denoise(path[-1], 1 - time, time), time)
            path.append(path[-1] - speed / steps)
        return path
        """,
    ),
]
