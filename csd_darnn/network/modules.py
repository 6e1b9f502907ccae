"""Encoder with input attention and decoder with temporal attention (sections 6.1, 6.2, 6.5).

Letters: B windows, S attended steps of the driving series (T - 1, or T with current_x), D decoder
steps (T - 1), N driving series, m / p hidden sizes of encoder / decoder, o targets.
Source: Qin et al. 2017, equations 2 to 22; the linear attention is that of the published project.
"""

import torch
from torch import nn


def zero_states(lstm: nn.LSTM, like: torch.Tensor, batch: int) -> list:
    """Return the zero (h, c) of every layer of ``lstm``, each (B, hidden)."""
    zero = like.new_zeros(batch, lstm.hidden_size)
    return [(zero, zero)] * lstm.num_layers


def lstm_step(lstm: nn.LSTM, fed: torch.Tensor, states: list) -> list:
    """Return the states of every layer after one step with input ``fed`` (B, K).

    The same numbers as ``lstm`` called on a sequence of length 1, at about half the time: that
    call has a fixed cost, which a loop over steps pays each time.
    """
    stepped = []
    for layer, state in enumerate(states):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = [getattr(lstm, f"{name}_l{layer}") for name in names]
        stepped.append(torch.lstm_cell(fed, state, *weights))
        fed = stepped[-1][0]
    return stepped


def encode_sequence(lstm: nn.LSTM, fed: torch.Tensor) -> torch.Tensor:
    """Return the top hidden states (B, S, m) of ``lstm`` over a sequence ``fed`` (B, S, N).

    On the CPU the product of the first layer is taken before time and batch are exchanged, which
    spares two copies of (B, S, N) in each direction, a sixth of a training step at N = 6,552; an
    identity as input weight then leaves that product as it is.
    """
    if fed.device.type != "cpu":
        return lstm(fed.transpose(0, 1))[0].transpose(0, 1)
    weights = [weight for layer in lstm.all_weights for weight in layer]
    product = nn.functional.linear(fed, weights[0]).transpose(0, 1)  # (S, B, 4m)
    weights[0] = torch.eye(4 * lstm.hidden_size, dtype=fed.dtype)
    zero = fed.new_zeros(lstm.num_layers, len(fed), lstm.hidden_size)
    options = True, lstm.num_layers, 0.0, lstm.training, False, False  # biases .. time first
    return torch.lstm(product, (zero, zero), weights, *options)[0].transpose(0, 1)


def encode_products(lstm: nn.LSTM, product: torch.Tensor) -> torch.Tensor:
    """Return the top hidden states (B, S, m) from the input product of the first layer (B, S, 4m).

    The product leaves the biases out. For prediction: about half the time of ``encode_sequence``,
    which multiplies by an identity and keeps what a gradient needs.
    """
    m, states = lstm.hidden_size, product
    for layer in range(lstm.num_layers):
        weight_ih, weight_hh, bias_ih, bias_hh = lstm.all_weights[layer]
        if layer:
            product = states @ weight_ih.T  # (B, S, 4m)
        product = product.transpose(0, 1) + (bias_ih + bias_hh)  # (S, B, 4m)
        states = product.new_empty(len(product), product.shape[1], m)
        hidden = cell = None
        for step, gates in enumerate(product):
            if hidden is not None:
                gates = torch.addmm(gates, hidden, weight_hh.T)
            inner = torch.tanh(gates[:, 2 * m : 3 * m])
            gates = torch.sigmoid(gates)
            new = gates[:, :m] * inner
            cell = new if cell is None else torch.addcmul(new, gates[:, m : 2 * m], cell)
            hidden = gates[:, 3 * m :] * torch.tanh(cell)
            states[step] = hidden
        states = states.transpose(0, 1)  # (B, S, m)
    return states


class Encoder(nn.Module):
    """Weight the driving series by attention and encode them with stacked LSTM layers.

    Args:
        input_size: N.
        hidden_size: m.
        T: window parameter; T - 1 steps are attended.
        attention: "linear" (published) or "tanh" (equation 8 of the paper).
        layers: number of stacked LSTM layers.
        attention_scale: factor on the weighted series that enter the LSTM: a number, or "n" for N.
        steps: attended steps when they are not T - 1.
    """

    def __init__(
        self,
        input_size,
        hidden_size,
        T,
        *,
        attention="linear",
        layers=2,
        attention_scale=1,
        steps=None,
    ):
        super().__init__()
        self.input_size, self.hidden_size, self.T = input_size, hidden_size, T
        self.attention = attention
        self.steps = T - 1 if steps is None else steps
        self.scale = float(input_size) if attention_scale == "n" else float(attention_scale)
        self.lstm_layer = nn.LSTM(input_size, hidden_size, num_layers=layers)
        if attention == "tanh":
            self.attn_hidden = nn.Linear(2 * hidden_size, self.steps, bias=False)
            self.attn_input = nn.Linear(self.steps, self.steps, bias=False)
            self.attn_v = nn.Linear(self.steps, 1, bias=False)
        else:
            # Faithful: the columns of h and c and the bias exist, so that checkpoints of either
            # project load in the other. They add the same number to every series, so softmax
            # cancels them: they get no gradient and no use.
            self.attn_linear = nn.Linear(2 * hidden_size + self.steps, 1)

    def forward(self, input_data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return alpha * x (B, S, N), never scaled, and the top states (B, S, m)."""
        return self.encode(input_data)[:2]

    def encode(self, input_data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Encode ``input_data`` (B, S, N).

        Returns:
            alpha * x (B, S, N), top hidden states (B, S, m), alpha (B, S, N); the linear alpha is
            one row (B, 1, N), because it is equal at all steps.
        """
        if self.attention == "tanh":
            return self._encode_tanh(input_data)
        # Source: section 6.1, fast form. One softmax and one LSTM call give the published numbers.
        weight = self.attn_linear.weight[0, 2 * self.hidden_size :]  # (S)
        alpha = torch.softmax(torch.matmul(weight, input_data), dim=1).unsqueeze(1)  # (B, 1, N)
        weighted = alpha * input_data  # (B, S, N)
        return weighted, encode_sequence(self.lstm_layer, self._scaled(weighted)), alpha

    def _scaled(self, weighted):
        return weighted if self.scale == 1.0 else weighted * self.scale

    def _encode_tanh(self, input_data):
        """Encode with e_k = v . tanh(W_e [h; c] + U_e x_k), step by step."""
        states = zero_states(self.lstm_layer, input_data, len(input_data))
        series = self.attn_input(input_data.transpose(1, 2))  # (B, N, S), once for all steps
        weighted, encoded, alphas = [], [], []
        for step in range(input_data.shape[1]):
            state = self.attn_hidden(torch.cat(states[-1], dim=1))  # (B, S)
            energy = self.attn_v(torch.tanh(state.unsqueeze(1) + series)).squeeze(2)  # (B, N)
            alphas.append(torch.softmax(energy, dim=1))
            weighted.append(alphas[-1] * input_data[:, step])  # (B, N)
            states = lstm_step(self.lstm_layer, self._scaled(weighted[-1]), states)
            encoded.append(states[-1][0])
        return torch.stack(weighted, dim=1), torch.stack(encoded, dim=1), torch.stack(alphas, dim=1)


class Decoder(nn.Module):
    """Predict the targets from the encoded series and the targets' own history.

    Args:
        encoder_hidden_size: m.
        decoder_hidden_size: p.
        T: window parameter; the history holds T - 1 steps.
        out_feats: o.
        layers: number of stacked LSTM layers.
        readout: "bottom" or "top": which layer's last hidden state gives the output.
        predict: "level", or "change" = the output is added to the last history value.
    """

    def __init__(
        self,
        encoder_hidden_size,
        decoder_hidden_size,
        T,
        out_feats=1,
        *,
        layers=2,
        readout="bottom",
        predict="level",
    ):
        super().__init__()
        self.T, self.encoder_hidden_size = T, encoder_hidden_size
        self.decoder_hidden_size, self.out_feats = decoder_hidden_size, out_feats
        self.readout, self.predict = readout, predict
        self.attn_layer = nn.Sequential(
            nn.Linear(2 * decoder_hidden_size + encoder_hidden_size, encoder_hidden_size),
            nn.Tanh(),
            nn.Linear(encoder_hidden_size, 1),
        )
        self.lstm_layer = nn.LSTM(out_feats, decoder_hidden_size, num_layers=layers)
        self.fc = nn.Linear(encoder_hidden_size + out_feats, out_feats)
        self.fc_final = nn.Linear(decoder_hidden_size + encoder_hidden_size, out_feats)
        nn.init.normal_(self.fc.weight)

    def forward(self, input_encoded: torch.Tensor, y_history: torch.Tensor) -> torch.Tensor:
        """Return the prediction (B, o) from states (B, S, m) and history (B, D, o)."""
        return self.decode(input_encoded, y_history)[0]

    def decode(
        self, input_encoded: torch.Tensor, y_history: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the prediction (B, o) and the temporal attention beta (B, D, S)."""
        width = 2 * self.decoder_hidden_size
        first, _, last = self.attn_layer
        # The encoder's share of the first linear layer is the same at every decoder step.
        encoder_share = nn.functional.linear(input_encoded, first.weight[:, width:], first.bias)
        state_weight = first.weight[:, :width]
        batch, steps, _ = y_history.shape
        states = zero_states(self.lstm_layer, input_encoded, batch)
        betas = []
        for step in range(steps):
            state = torch.cat(states[-1], dim=1)  # h and c of the top layer, (B, 2p)
            share = nn.functional.linear(state, state_weight).unsqueeze(1)  # (B, 1, m)
            energy = last(torch.tanh(encoder_share + share)).squeeze(2)  # (B, S)
            beta = torch.softmax(energy, dim=1)
            context = torch.bmm(beta.unsqueeze(1), input_encoded).squeeze(1)  # (B, m)
            y_tilde = self.fc(torch.cat((context, y_history[:, step]), dim=1))  # (B, o)
            states = lstm_step(self.lstm_layer, y_tilde, states)
            betas.append(beta)
        # Faithful: the published network reads the bottom layer, a leftover of its origin.
        read = states[0][0] if self.readout == "bottom" else states[-1][0]
        output = self.fc_final(torch.cat((read, context), dim=1))  # (B, o)
        if self.predict == "change":
            output = output + y_history[:, -1]
        return output, torch.stack(betas, dim=1)
