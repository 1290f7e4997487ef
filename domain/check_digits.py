"""Check digits: which numbers can be a CPF, a CNPJ or a payment card."""


def is_cpf(digits: str) -> bool:
    """Tell whether eleven digits are a CPF.

    Rule of Receita Federal: each check digit is the sum of the digits before it, weighted 2, 3, 4, ... from the right,
    modulo 11; it is 0 when the rest is below 2 and 11 minus the rest otherwise. Eleven equal digits pass the sum and
    are not issued.
    """
    if len(digits) != 11 or len(set(digits)) == 1:
        return False
    for length in (9, 10):
        total = sum(int(digit) * weight for digit, weight in zip(digits, range(length + 1, 1, -1), strict=False))
        if int(digits[length]) != total * 10 % 11 % 10:
            return False
    return True


def is_cnpj(characters: str) -> bool:
    """Tell whether fourteen characters are a CNPJ, all digits or (issued since July 2026) letters and digits.

    Rule of Instrução Normativa RFB 2.229 of 2024: a character counts as its ASCII code minus 48 (a digit as itself, A
    as 17), weights run 2 to 9 from the right and begin again, modulo 11; a rest below 2 gives 0, any other 11 minus
    the rest. The two check digits are always digits.
    """
    characters = characters.upper()
    if len(characters) != 14 or len(set(characters)) == 1 or not characters[12:].isdecimal():
        return False
    for length in (12, 13):
        values = reversed(characters[:length])
        rest = sum((ord(character) - 48) * (2 + at % 8) for at, character in enumerate(values)) % 11
        if int(characters[length]) != (0 if rest < 2 else 11 - rest):
            return False
    return True


def is_card(digits: str) -> bool:
    """Tell whether the digits may be a payment card's number: scheme, length and Luhn (ISO/IEC 7812-1, annex B).

    One number of ten passes Luhn by accident, hence the schemes' prefixes and lengths: Visa and Elo `4` (13, 16, 19),
    Mastercard `51`-`55` and `2221`-`2720` (16), Amex `34`, `37` (15), Diners `30`, `36`, `38`, `39` (14, 16 to 19), JCB
    `3528`-`3589` (16 to 19), Hipercard `3841`, Elo and Maestro `50`, `56`-`58`, and all of `6` (13 to 19).
    """
    length, prefix = len(digits), int(digits[:4])
    if not 13 <= length <= 19:
        return False
    issued = (
        (4000 <= prefix < 5000 and length in (13, 16, 19))
        or ((5100 <= prefix < 5600 or 2221 <= prefix <= 2720) and length == 16)
        or (prefix // 100 in (34, 37) and length == 15)
        or (prefix // 100 in (30, 36, 38, 39) and (length == 14 or length >= 16))
        or (3528 <= prefix <= 3589 and length >= 16)
        or prefix == 3841
        or prefix // 100 in (50, 56, 57, 58)
        or prefix // 1000 == 6
    )
    if not issued or len(set(digits)) == 1:
        return False
    doubled = (sum(divmod(int(digit) * 2, 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0
