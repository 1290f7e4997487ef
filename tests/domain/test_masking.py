"""Personal numbers go, everything else stays."""

import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from re import _parser  # type: ignore[attr-defined]  # the one place that knows a pattern's width

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain import masking, masking_patterns, masking_pix
from domain.check_digits import is_card, is_cnpj, is_cpf
from domain.masking import mask

KEY, BARE_KEY = "9793cfa0-177f-4a67-8c45-c1f37835dfad", "80000c1bc6614abead67bd18c988d496"
PAYLOAD = f"00020126580014br.gov.bcb.pix0136{KEY}5204000053039865802BR5903Rui6006RECIFE62070503***63041D3D"
NBSP, ZERO_WIDTH, NARROW, DASH = "\u00a0", "\u200b", "\u202f", "\u2011"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        # CPF
        ("529.982.247-25", "[CPF]"),
        ("meu cpf é 52998224725, ok?", "meu cpf é [CPF], ok?"),
        ("CPF:529.982.247-25", "CPF:[CPF]"),
        ("cpf52998224725ok", "cpf[CPF]ok"),
        ("529 982 247 25", "[CPF]"),
        ("529982247-25", "[CPF]"),
        ("529.982.247/25", "[CPF]"),
        # CNPJ
        ("CNPJ 11.222.333/0001-81", "CNPJ [CNPJ]"),
        ("11222333000181", "[CNPJ]"),
        ("11222333/0001-81", "[CNPJ]"),
        ("11 222 333 0001 81", "[CNPJ]"),
        ("12.ABC.345/01DE-35", "[CNPJ]"),
        ("12.abc.345/01de-35", "[CNPJ]"),
        ("12ABC34501DE35", "[CNPJ]"),
        ("CNPJ12ABC34501DE35", "CNPJ[CNPJ]"),
        # e-mail
        ("escreva para joao.silva+loja@empresa.com.br.", "escreva para [EMAIL]."),
        ("MARIA_1@X.COM", "[EMAIL]"),
        ("joão@açaí.com.br", "[EMAIL]"),
        ("fulano@gmail.com.Obrigado!", "[EMAIL].Obrigado!"),
        ("<a@b.co>,<c@d.co>", "<[EMAIL]>,<[EMAIL]>"),
        ("a" * 100 + "@exemplo.com", "[EMAIL]"),
        # telephone, Brazil
        ("11987654321", "[TELEFONE]"),
        ("(11) 98765-4321", "[TELEFONE]"),
        ("(11)98765-4321(21)99876-0002", "[TELEFONE][TELEFONE]"),
        ("(011) 98765-4321", "[TELEFONE]"),
        ("011 98765 4321", "[TELEFONE]"),
        ("0xx11 3265-4321", "[TELEFONE]"),
        ("0 15 11 98765-4321".replace("0 15", "015"), "[TELEFONE]"),
        ("+55 11 9 8765-4321", "[TELEFONE]"),
        ("+55 (11) 3265.4321", "[TELEFONE]"),
        ("(+55 11 98765-4321)", "([TELEFONE])"),
        ("0055 11 98765-4321", "[TELEFONE]"),
        ("5511987654321", "[TELEFONE]"),
        ("558599661004", "[TELEFONE]"),
        ("85 9966-1004", "[TELEFONE]"),
        ("11-98765-4321", "[TELEFONE]"),
        ("11.98765.4321", "[TELEFONE]"),
        ("11 987 654 321", "[TELEFONE]"),
        ("1132654321", "[TELEFONE]"),
        ("55991234567", "[TELEFONE]"),  # area 55, not the country
        ("98765-4321", "[TELEFONE]"),
        ("tel.: 3456-7890", "tel.: [TELEFONE]"),
        ("meu zap é 98765 4321", "meu zap é [TELEFONE]"),
        ("11987654321,21987654321", "[TELEFONE],[TELEFONE]"),
        ("11987654321/11987654322", "[TELEFONE]/[TELEFONE]"),
        ("cancela o pedido. 11987654321", "cancela o pedido. [TELEFONE]"),
        # telephone, elsewhere
        ("+351 912 345 678", "[TELEFONE]"),
        ("+1 (415) 555-2671", "[TELEFONE]"),
        ("ligue +1 415 555 2671 2 vezes", "ligue [TELEFONE] 2 vezes"),
        ("+54 9 11 1234-5678", "[TELEFONE]"),
        ("+33 6 12 34 56 78", "[TELEFONE]"),
        # WhatsApp
        ("@5511987650001 veja isso", "@[TELEFONE] veja isso"),
        ("\u2068@5511987650001\u2069", "\u2068@[TELEFONE]\u2069"),
        ("@118273645546372 veja isso", "@[TELEFONE] veja isso"),
        ("https://wa.me/5511987650001?text=oi", "https://wa.me/[TELEFONE]?text=oi"),
        ("https://wa.me/351912345678", "https://wa.me/[TELEFONE]"),
        ("api.whatsapp.com/send?phone=%2B5511987650001&x=1", "api.whatsapp.com/send?phone=[TELEFONE]&x=1"),
        ("5511987650001@s.whatsapp.net", "[EMAIL]"),
        # cards
        ("4111111111111111", "[CARTÃO]"),
        ("4111 1111 1111 1111", "[CARTÃO]"),
        ("4111-1111-1111-1111", "[CARTÃO]"),
        ("4111 1111 1111 1111 cvv 123", "[CARTÃO] cvv 123"),
        ("4111 1111 1111 1111 123", "[CARTÃO] 123"),
        ("4222222222222", "[CARTÃO]"),
        ("5555555555554444", "[CARTÃO]"),
        ("2223003122003222", "[CARTÃO]"),
        ("378282246310005", "[CARTÃO]"),
        ("3782 822463 10005", "[CARTÃO]"),
        ("30569309025904", "[CARTÃO]"),
        ("3056 930902 5904", "[CARTÃO]"),
        ("6062826786276634", "[CARTÃO]"),
        ("6759649826438453", "[CARTÃO]"),
        # Pix: a key of version 4, called one or not called anything
        (KEY, "[PIX]"),
        (KEY.upper(), "[PIX]"),
        (KEY.replace("-", " "), "[PIX]"),
        (f"pix:{BARE_KEY}", "pix:[PIX]"),
        (f"{BARE_KEY} é a minha chave", "[PIX] é a minha chave"),
        (f"a chave pix do pedido: {KEY}", "a chave pix do pedido: [PIX]"),
        (f"chave https://exemplo.com/{KEY}", "chave https://exemplo.com/[PIX]"),
        ("chave 123e4567-e89b-12d3-a456-551132654321", "chave [PIX]"),
        (f"[PIX] {KEY} {KEY}", "[PIX] [PIX] [PIX]"),
        # Pix: the whole payload, well formed or not
        (f"{PAYLOAD}abc", "[PIX]abc"),
        (f"{PAYLOAD.upper()} ok", "[PIX] ok"),
        (f"{PAYLOAD}{PAYLOAD}", "[PIX][PIX]"),
        (f"{PAYLOAD[:-4]} não deu", "[PIX] não deu"),
        (f"{PAYLOAD[:90]}\n{PAYLOAD}", "[PIX]\n[PIX]"),
        (PAYLOAD.replace("5903Rui", "5907Rui"), "[PIX]"),
        (f"…0014br.gov.bcb.pix0136{KEY}5204000053039865802BR5903Rui6304ABCD!", "…0014[PIX]!"),
        # glued and mixed
        ("52998224725-11987654321", "[CPF]-[TELEFONE]"),
        ("x@y.com11987654321", "[EMAIL][TELEFONE]"),
        (
            "CPF 529.982.247-25, tel (11) 98765-4321, a@b.com, pedido 48213",
            "CPF [CPF], tel [TELEFONE], [EMAIL], pedido 48213",
        ),
        # other characters
        ("１１９８７６５４３２１", "[TELEFONE]"),
        ("٥٢٩٩٨٢٢٤٧٢٥", "[CPF]"),
        (f"11{NBSP}98765{DASH}4321", "[TELEFONE]"),
        (f"529{NARROW}982{NARROW}247{NARROW}25", "[CPF]"),
        (f"é {ZERO_WIDTH}5{ZERO_WIDTH}29{ZERO_WIDTH}98224725{ZERO_WIDTH}!", f"é {ZERO_WIDTH}[CPF]{ZERO_WIDTH}!"),
        ("".join(f"{digit}\ufe0f\u20e3" for digit in "11987654321") + " 😀", "[TELEFONE] 😀"),
        ("joao＠empresa．com", "[EMAIL]"),
    ],
)
def test_masked(text: str, masked: str) -> None:
    assert mask(text) == masked
    assert mask(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Bom dia! Meu pedido 48213 ainda não chegou, o prazo era ontem.",
        "48213000111",  # no CPF, and after area 48 comes neither a mobile nor a landline
        "111.111.111-11",
        "00000000000000",
        "529.982.247-26",
        "11.222.333/0001-82",
        "12.ABC.345/01DE-36",
        "4111 1111 1111 1112",
        "0000 0000 0000 0000",
        "pedido nº 1132654321",
        "protocolo: 1132654321",
        "Protocolo 20251022001234",
        "protocolo 2025102212345678",
        "1761134400",  # ten digits, as short as no mobile has been since 2016
        "R$ 1.234,56",
        "R$ 1132654321,00 no total",
        "total de 1132654321,00",
        "R$ 11987654321",
        "+10.000.000.000 de visualizações",
        "22/10/2025 09:11",
        "2025-10-22T09:11:30.412Z",
        "de 2024-2025 para 2026-2027",
        "das 08:00 às 18:30",
        "CEP 01310-100",
        "01310100",
        "7891000315507",  # a barcode (EAN-13)
        "356938035643809",  # an IMEI: passes Luhn, fifteen digits, and is no card's prefix
        "rastreio BR123456789BR",
        "0800 123 4567",
        "110.042.490.114",
        "34191.79001 01043.510047 91020.150008 1 84230000026000",
        "34191790010104351004791020150008184230000026000",
        "84670000001-7 43590024020-9 02405000243-8 84230108013-4",
        "846700000017435900240209024050002438842301080134",
        "3525 1012 3456 7800 0195 5500 1000 0000 0110 0000 0010",
        "35251012345678000195550010000000011000000010",
        "123e4567-e89b-12d3-a456-551132654321",
        "123e4567-e89b-12d3-a456-551132654321 é a versão 1",
        f"pedido {KEY}",
        f"https://exemplo.com/r/{KEY}",
        f"GET /r/{KEY}",
        f"{KEY}.pdf",
        f"IMG_{KEY}.jpg",
        f"licença {BARE_KEY}",
        f"[PIX] {BARE_KEY} [PIX]",  # a token is no cue
        f"pix, txid {BARE_KEY}",
        "pix E00416968202411281530a1b2c3d4e5f",  # the id of a transfer, by chance with the digits of a version 4
        "pix 12345678901241238123123456789012",
        "o padrão é br.gov.bcb.pix, e começa com 000201",
        "ligue 4004-1234 ou tel 4003 5678",
        "liga e diz o pedido 987654321",
        "no whats dei o protocolo 32654321",
        "CPF: pedido 1234567890",  # with a 0 before it, a CPF
        "https://maps.google.com/?q=-23.5505199123,-46.6333091234",
        "[TELEFONE] 98765432 unidades",
        "fulano@ arroba @fulana",
        "a@b",
        "9 dddd",
        "1\u200b2\u200b3\u00a0— “aspas” \U0001f468\u200d\U0001f469\u200d\U0001f467 e\u0301",
    ],
)
def test_untouched(text: str) -> None:
    assert mask(text) == text


def test_check_digits() -> None:
    assert is_cpf("52998224725")
    assert is_cpf("00000000191")
    assert not is_cpf("5299822472")
    assert is_cnpj("00000000000191")
    assert is_cnpj("12abc34501de35")
    assert not is_cnpj("12ABC34501DEA5")
    assert is_card("4111111111111111")
    assert not is_card("411111111111")
    assert not is_card("9111111111111119")


def cpf(stem: str) -> str:
    return next(number for n in range(100) if is_cpf(number := f"{stem}{n:02d}"))


nine_digits = st.from_regex("[0-9]{9}", fullmatch=True).filter(lambda digits: len(set(digits)) > 1)


@given(nine_digits)
def test_exactly_one_pair_of_check_digits_makes_a_cpf(stem: str) -> None:
    assert sum(is_cpf(f"{stem}{n:02d}") for n in range(100)) == 1


@given(st.from_regex("[0-9A-Z]{12}", fullmatch=True).filter(lambda stem: len(set(stem)) > 1))
def test_exactly_one_pair_of_check_digits_makes_a_cnpj(stem: str) -> None:
    assert sum(is_cnpj(f"{stem}{n:02d}") for n in range(100)) == 1


@given(
    nine_digits,
    st.text(alphabet=st.characters(exclude_categories=["Nd", "Mn", "Me", "Cs"], exclude_characters="@＠﹫")),
)
def test_the_text_around_is_preserved(stem: str, around: str) -> None:
    number = cpf(stem)
    assert mask(f"{around} {number}! {around}") == f"{around} [CPF]! {around}"


FRAGMENTS = (
    "11", "55", "9", "98765", "4321", "3265", "1132654321", "11987654321", "52998224725", "529.982.247-25", "4111",
    "1111", "4111111111111111", "11.222.333/0001-81", "12ABC34501DE35", "351912345678", "12345678", "@", "+", "(", ")",
    " ", "  ", "-", ".", ",", "/", "0xx", "00", "tel", "cel ", "pedido ", "x@y.com", "wa.me/", "R$", "[CPF]", "[", "]",
    "\n", ZERO_WIDTH, NBSP, "é", "A", "_", "\u20e3", "１", KEY, BARE_KEY, "pix ", "chave", "br.gov.bcb.pix", "000201",
    "6304ABCD", "cpf ", "cartao ", "arroba", " gmail", "com", " e ", "1 2 3 4 ", "3222-0001", "://", "www.",
)  # fmt: skip


@settings(max_examples=500)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join), st.sampled_from([1, 2, 9]))
def test_masking_twice_is_masking_once(unit: str, times: int) -> None:
    masked = mask(unit * times)
    assert mask(masked) == masked


@given(st.text())
def test_any_text_can_be_masked(text: str) -> None:
    masked = mask(text)
    assert mask(masked) == masked


ADVERSARIES = (
    "1", "1 ", "@", "a@a.", "a.", "+1 ", "11987654321,", "11  3265-4321,", "tel ", "cel 41113265", "98765-4321-",
    "@12345678", "+351912345678", "(11)98765-4321", "1\u200b", "4111 1111 1111 111 ", "pedido 1132654321 ", "9 9999-",
    "99 ", "11.9", "(11 ", "12ABC34501DE35", "a@b.co", "0xx11", "52998224725", "\u200b", "pix ", "chave 4f3c2b1a ",
    "000201", "00020126180014br.gov.bcb.pix0001x", "000201br.gov.bcb.pix", "br.gov.bcb.pix0136",
    "br.gov.bcb.pix00006304", "00020100", KEY, f"{KEY} ",
    f"pix {BARE_KEY} ", f"{BARE_KEY} pix ", f"{BARE_KEY} ", f"/{KEY}.", "deadbeef-", "f4-", "1 2 3 ", "5 2 9 9 8    ",
    "x arroba gmail ponto com ", " arroba ", "x@gmail", "a @ gmail", "cpf ", "cpf 123 456 ", "c.p.f 529 98224 725 ",
    "cartao 4111 ", "cartao 41111 11111 111111 ", "visa elo 5 5 5 ", "tel 3222-0001 e ", "[TELEFONE] e 98765-0001",
    "98765-0001, ", "contato 3222-0001", "meu numero 98765 0001 ", "00351 912 ", "A1", "/12", "ab.cde.fgh/ijkl-35 ",
)  # fmt: skip


class Ledger:
    """Counts what the patterns read, and every call, of Python or C."""

    def __init__(self) -> None:
        self.characters = self.calls = 0

    def of(self, text: str) -> tuple[int, int]:
        """Mask the text and return what it took."""
        self.characters = self.calls = 0
        before = sys.getprofile()
        sys.setprofile(self._note_call)
        try:
            mask(text)
        finally:
            sys.setprofile(before)
        return self.characters, self.calls

    def _note_call(self, _frame: object, event: str, _argument: object) -> None:
        self.calls += event in ("call", "c_call")


class Counted:
    """A pattern that keeps a ledger of the characters that it passed over."""

    def __init__(self, pattern: re.Pattern[str], ledger: Ledger) -> None:
        self._pattern, self._ledger = pattern, ledger

    def _note(self, match: re.Match[str] | None, text: str, at: int, stop: int, *, anchored: bool) -> None:
        end = match.end() if match is not None else at if anchored else max(at, min(stop, len(text)))
        self._ledger.characters += end - at

    def search(self, text: str, at: int = 0, stop: int = sys.maxsize) -> re.Match[str] | None:
        match = self._pattern.search(text, at, stop)
        self._note(match, text, at, stop, anchored=False)
        return match

    def match(self, text: str, at: int = 0, stop: int = sys.maxsize) -> re.Match[str] | None:
        match = self._pattern.match(text, at, stop)
        self._note(match, text, at, stop, anchored=True)
        return match

    def finditer(self, text: str, at: int = 0, stop: int = sys.maxsize) -> Iterator[re.Match[str]]:
        self._note(None, text, at, stop, anchored=False)
        return self._pattern.finditer(text, at, stop)

    def sub(self, by: str, text: str) -> str:
        self._note(None, text, 0, sys.maxsize, anchored=False)
        return self._pattern.sub(by, text)


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Make every pattern of masking keep a ledger."""
    ledger = Ledger()
    for room in (masking_patterns, masking_pix):
        for name, value in list(vars(room).items()):
            if isinstance(value, re.Pattern):
                monkeypatch.setattr(room, name, Counted(value, ledger))
    detectors = tuple((Counted(pattern, ledger), *rest) for pattern, *rest in masking._DETECTORS)
    monkeypatch.setattr(masking, "_DETECTORS", detectors)
    return ledger


@pytest.mark.parametrize("unit", ADVERSARIES)
def test_twice_the_text_is_twice_the_work(unit: str, ledger: Ledger) -> None:
    work = [ledger.of(unit * (size // len(unit))) for size in (8_192, 16_384, 32_768)]
    for (characters, calls), (characters_of_twice, calls_of_twice) in pairwise(work):
        assert characters_of_twice <= 2.1 * characters + 1_000
        assert calls_of_twice <= 2.1 * calls + 100


def test_a_pattern_reads_no_further_than_a_bound() -> None:
    # So what one look at one place can cost does not depend on the text, however the pattern tries and tries again.
    for room in (masking_patterns, masking_pix):
        for name, value in vars(room).items():
            # WORTH_A_LOOK goes from digit to digit, and where it fails there are seven at most.
            if isinstance(value, re.Pattern) and name != "WORTH_A_LOOK":
                assert _parser.parse(value.pattern, value.flags).getwidth()[1] <= 700, name
