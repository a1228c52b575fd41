"""Capitals: sentences in capitals become ordinary ones, acronyms are spelled unless they are said as words."""

from __future__ import annotations

import re

from balancer.text.english.rules import At, rule

_RESPELLED = {
    "WWI": "World War one",
    "WWII": "World War two",
    "JSON": "Jason", "OK": "okay", "iPhone": "I Phone", "iPad": "I Pad", "iPod": "I Pod", "iCloud": "I Cloud",
    "iTunes": "I Tunes",
    "iMac": "I Mac", "macOS": "mac O S", "iOS": "I O S", "iPadOS": "I Pad O S", "eBay": "E Bay", "eBook": "E book",
    "SQL": "sequel",
    "GIF": "gif", "IEEE": "I triple E", "Ok": "Okay", "ok": "okay", "PhD": "P H D", "kHz": "kilohertz",
    "LaTeX": "Latek",
    "YouTube": "YouTube", "PDFs": "P D Fs", "nVidia": "Nvidia", "NVIDIA": "Nvidia", "AMD": "A M D",
    "PostgreSQL": "Postgres Q L",
    "MySQL": "my S Q L", "GHz": "gigahertz", "eSIM": "E sim", "mRNA": "M R N A", "tRNA": "T R N A", "ePub": "E pub",
}  # fmt: skip
_SPELLED = frozenset(
    """
    AI API ASAP AWS BBC BIOS CEO CFO CTO COO CIA CNN CPU CSS CSV CV DIY DNA DNS DOB EEG EKG ETA EU EV FAQ FBI FYI GDP
    GMO GPA GPS GPT GPU GUI HIV
    HQ HR HTML HTTP HTTPS ID IOS IP IPO IQ IRA IRS IT IOU IDE IE IO IOT ISP KPI LED LGBT LLM MBA MIT MRI NBA NFL NGO
    NHL NHS NSA NYC OCD OS PC PDF
    PHP PR PTSD QA QR RNA ROI RSVP SDK SEO SMS SOS SSD SUV TBA TBD TV UAE UI UFO UK UN URL US USA USB USD UTC UX VIP
    VPN WHO WWW XML YMCA
    AKA BMI ADHD AGI EDM EDT EST PST PDT CET GMT MST CST OECD AARP ACLU IMF EPA FDA DIN ISO IBM ICU UPS USPS HBO ESPN
    MTV NPR NYU UCLA ATM DJ MC
    GTA RPG EOD OOO POV IMO AC DC AM PM OMG LOL TLDR DMV GOP IED VHS DVD
    """.split()
)
"""Letters that are spelled although they might be said as a word, or are one."""
_SAID = frozenset(
    """
    NASA NATO UNESCO UNICEF OPEC FIFA UEFA COVID AIDS RAM ROM LAN WAN SIM PIN SWAT SCUBA LASER RADAR SONAR YOLO FOMO
    CAPTCHA JPEG GIF NASDAQ SARS
    NAFTA DARPA NOAA OSHA HIPAA UNHCR SEAL SCSI CRUD SOAP REST AJAX BASIC COBOL FORTRAN IKEA LEGO ASCII MIDI NIMBY
    WASP ASEAN CERN POTUS FLOTUS
    """.split()
)  # fmt: skip
_WORDS = frozenset(
    """
    A I AN AS AT BE BY DO GO HE HI IF IN IS ME MY NO OF OH ON OR SO TO UP WE AH HA HO YO AM US IT OK EX PA MA LO
    ACT ADD AGE AGO AID AIM AIR ALL AND ANY APE ARE ARM ART ASK ATE BAD BAG BAN BAR BAT BED BEE BET BIG BIN BIT BOX
    BOY BUG BUS BUT BUY CAB CAN CAP
    CAR CAT COW CRY CUP CUT DAD DAM DAY DEN DID DIE DIG DIM DOG DOT DRY DUE EAR EAT EGG END ERA EVE EYE FAN FAR FAT
    FED FEE FEW FIG FIT FIX FLY FOG
    FOR FOX FUN FUR GAP GAS GET GIN GOD GOT GUM GUN GUY GYM HAD HAM HAS HAT HAY HEN HER HEY HID HIM HIP HIS HIT HOP
    HOT HOW HUG HUT ICE ILL INK INN
    ITS JAM JAR JAW JET JOB JOG JOY KEY KID KIT LAB LAP LAW LAY LEG LET LID LIE LIP LIT LOG LOT LOW MAD MAN MAP MAT
    MAY MEN MET MIX MOB MOM MUD MUG
    NAP NET NEW NOD NOR NOT NOW NUT OAK ODD OFF OIL OLD ONE OUR OUT OWE OWL OWN PAD PAN PAY PEA PEN PET PIE PIG PIT
    POP POT PUT RAG RAN RAT RAW RAY
    RED RIB RID RIM RIP ROB ROD ROW RUB RUG RUN RYE SAD SAT SAW SAY SEA SEE SET SHE SHY SIN SIP SIR SIT SIX SKI SKY
    SON SPY SUM SUN TAB TAG TAN TAP
    TAX TEA TEN THE TIE TIN TIP TOE TON TOO TOP TOY TRY TWO UGH USE VAN VET WAR WAS WAY WEB WET WHO WHY WIG WIN WON
    YES YET YOU ZIP ZOO HMM SHH WOW
    YEP NAH AHA BRR GRR
    """.split()
)  # fmt: skip
"""Short words: three capitals are an acronym otherwise."""

_CAPITALS_TOGETHER = re.compile("[A-Z\u00c0-\u00de]{2}")
_VOWEL = re.compile(r"[AEIOUY]")
_CAPITALS = r"[A-Z\u00c0-\u00d6\u00d8-\u00de]"
_RUN = (
    rf"(?<![\w.-])(?:I|A|{_CAPITALS}[{_CAPITALS[1:-1]}']+)(?:[ ,;:\"'-]+(?:I|A"
    rf"|{_CAPITALS}[{_CAPITALS[1:-1]}']+)(?![\w])){{1,200}}[.!?]?(?![\w-])"
)
_WORD = re.compile(rf"{_CAPITALS}[{_CAPITALS[1:-1]}']*")


def _is_acronym(word: str) -> bool:
    """Whether a word in capitals, within a text that is not in capitals, is spelled."""
    if word in _SPELLED:
        return True
    if word in _SAID or word in _WORDS:
        return False
    if not word.isascii():
        return False
    return len(word) <= 3 or not _VOWEL.search(word)


def _run(match: re.Match[str]) -> str:
    """Several words in capitals: an ordinary sentence, if most of them are words."""
    words = _WORD.findall(match[0])
    plain = [word for word in words if "'" in word or word in _WORDS or not _is_acronym(word)]
    shouted = [word for word in plain if word not in _SAID and (len(word) > 1)]
    if len(shouted) * 2 < len(words) or not any(len(word) > 2 for word in shouted):
        return match[0]
    spelled_anyway = _SPELLED - _WORDS
    text = _WORD.sub(
        lambda word: (
            word[0]
            if word[0] in spelled_anyway or word[0] == "OK" or word[0] == "I" or word[0].startswith("I'")
            else word[0].lower()
        ),
        match[0],
    )
    return text[0].upper() + text[1:]


def _acronym(match: re.Match[str]) -> str | None:
    word, plural = match["word"], match["plural"] or ""
    if not _is_acronym(word):
        return word.capitalize() + plural if word in _SAID and len(word) > 3 else None
    letters = " ".join(word)
    return f"{letters}{plural if chr(39) in plural else chr(39) + plural if plural else ''}"


RULES = (
    rule(r"(?<![^.!?\n] )(?<![^\s])(?:OK|ok)(?!\w)", "Okay", needs=("OK", "ok")),
    rule(_RUN, _run, needs=_CAPITALS_TOGETHER, at=At.capitals),
    rule(
        rf"(?<![\w.])(?:{'|'.join(sorted(_RESPELLED, key=len, reverse=True))})(?!\w)",
        lambda match: _RESPELLED[match[0]],
        needs=tuple(_RESPELLED),
    ),
    rule(
        r"(?<![\w.'])(?P<word>[A-Z]{2,12})(?P<plural>'?s)?(?![\w])", _acronym, needs=_CAPITALS_TOGETHER, at=At.capitals
    ),
)
