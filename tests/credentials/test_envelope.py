"""Envelopes: what goes in comes out, and everything else is refused for its own reason."""

import os
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from budcluster.credentials.envelope import (
    BULK_MAGIC,
    LARGEST_BULK,
    LARGEST_SECRET,
    MAGIC,
    Owner,
    fingerprint_of,
    keyed_hash,
    rewrap,
    seal,
    seal_bulk,
    unseal,
    unseal_bulk,
)
from budcluster.credentials.errors import NotAnEnvelope, SealedSecretRefused, Tampered, TooLarge, UnknownKey, WrongOwner
from budcluster.credentials.keys import WrappingKey, load_wrapping_key, write_key
from budcluster.credentials.ring import KeyRing
from tests.fixtures.keys import RsaPems

MINE = Owner("credentials.secret", UUID(int=1))
KEY = bytes(range(32))


@pytest.fixture(scope="module")
def keys(rsa_pems: RsaPems, tmp_path_factory: pytest.TempPathFactory) -> tuple[WrappingKey, WrappingKey]:
    folder = tmp_path_factory.mktemp("keys")
    for number, pem in enumerate(rsa_pems):
        write_key(folder / str(number), pem)
    return load_wrapping_key(folder / "0"), load_wrapping_key(folder / "1")


Keys = tuple[WrappingKey, WrappingKey]


@given(size=st.integers(0, 1024 * 1024), begin=st.binary(max_size=64), row=st.uuids())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_sealed_is_opened_the_same(keys: Keys, size: int, begin: bytes, row: UUID) -> None:
    secret, owner = begin + os.urandom(size), Owner("clusters.kubeconfig_encrypted", row)
    sealed = seal(secret[:LARGEST_SECRET], owner, keys[0])
    assert unseal(sealed, owner, keys[0]) == secret[:LARGEST_SECRET]
    assert unseal_bulk(seal_bulk(secret, owner, KEY), owner, KEY) == secret
    assert len(secret) < 8 or secret not in sealed


# Offset of one byte in each part of the envelope, and what its alteration is refused as.
REGIONS = {
    "magic": (0, NotAnEnvelope),
    "version": (4, NotAnEnvelope),
    "fingerprint": (5, UnknownKey),
    "end of fingerprint": (20, UnknownKey),
    "owner": (21, Tampered),
    "end of owner": (52, Tampered),
    "length, high": (53, Tampered),
    "length, low": (54, Tampered),
    "wrapped key": (55, Tampered),
    "end of wrapped key": (566, Tampered),
    "nonce": (567, Tampered),
    "end of nonce": (578, Tampered),
    "ciphertext": (579, Tampered),
    "tag": (-16, Tampered),
    "end of tag": (-1, Tampered),
}


@pytest.mark.parametrize("region", REGIONS)
def test_an_altered_envelope_is_refused_for_what_was_altered(keys: Keys, region: str) -> None:
    offset, refused_as = REGIONS[region]
    altered = bytearray(seal(b"secret content", MINE, keys[0]))
    altered[offset] ^= 0x01
    with pytest.raises(refused_as):
        unseal(bytes(altered), MINE, keys[0])


@pytest.mark.parametrize("stride", [37])
def test_no_single_altered_byte_is_ever_accepted(keys: Keys, stride: int) -> None:
    sealed = seal(b"secret content", MINE, keys[0])
    for offset in range(0, len(sealed), stride):
        altered = bytearray(sealed)
        altered[offset] ^= 0xFF
        with pytest.raises(SealedSecretRefused):
            unseal(bytes(altered), MINE, keys[0])


@pytest.mark.parametrize("length", [0, 3, 5, 30, 54, 55, 200, 578, 594, -1])
def test_a_cut_envelope_is_refused(keys: Keys, length: int) -> None:
    with pytest.raises((NotAnEnvelope, Tampered)):
        unseal(seal(b"secret content", MINE, keys[0])[:length], MINE, keys[0])


def test_swapped_rows_and_columns_are_told_from_altered_ones(keys: Keys) -> None:
    sealed = seal(b"secret content", MINE, keys[0])
    for other in (Owner(MINE.column, uuid4()), Owner("clusters.kubeconfig_encrypted", MINE.row)):
        with pytest.raises(WrongOwner):
            unseal(sealed, other, keys[0])
        with pytest.raises(WrongOwner):
            unseal_bulk(seal_bulk(b"state", MINE, KEY), other, KEY)


def test_a_header_that_claims_another_owner_is_tampering(keys: Keys) -> None:
    other = Owner(MINE.column, uuid4())
    sealed = bytearray(seal(b"secret content", MINE, keys[0]))
    sealed[21:53] = other.digest()
    with pytest.raises(Tampered):
        unseal(bytes(sealed), other, keys[0])


def test_another_key_opens_nothing_even_when_the_envelope_is_made_to_name_it(keys: Keys) -> None:
    sealed = seal(b"secret content", MINE, keys[0])
    with pytest.raises(UnknownKey, match=keys[0].name):
        unseal(sealed, MINE, keys[1])
    with pytest.raises(Tampered):
        unseal(sealed[:5] + keys[1].fingerprint + sealed[21:], MINE, keys[1])


def test_two_seals_of_one_secret_have_nothing_in_common(keys: Keys) -> None:
    one, two = (seal(b"secret content", MINE, keys[0]) for _ in range(2))
    assert one[55:] != two[55:]
    assert one[-30:] != two[-30:]


def test_a_rewrapped_secret_opens_with_the_new_key_only(keys: Keys) -> None:
    old, new = keys
    sealed = seal(b"secret content", MINE, old)
    changed = rewrap(sealed, old, new)
    assert fingerprint_of(changed) == new.fingerprint
    assert unseal(changed, MINE, new) == b"secret content"
    with pytest.raises(UnknownKey):
        unseal(changed, MINE, old)


def test_too_much_is_refused_before_anything_is_sealed(keys: Keys) -> None:
    with pytest.raises(TooLarge):
        seal(bytes(LARGEST_SECRET + 1), MINE, keys[0])
    with pytest.raises(TooLarge):
        seal_bulk(bytes(LARGEST_BULK + 1), MINE, KEY)


def test_altered_bulk_data_is_refused_for_what_was_altered() -> None:
    sealed = seal_bulk(b"terraform state", MINE, KEY)
    for offset, refused_as in {0: NotAnEnvelope, 5: UnknownKey, 13: Tampered, 45: Tampered, 77: Tampered}.items():
        altered = bytearray(sealed)
        altered[offset] ^= 0x01
        with pytest.raises(refused_as):
            unseal_bulk(bytes(altered), MINE, KEY)
    with pytest.raises(Tampered):
        unseal_bulk(sealed[:40], MINE, KEY)
    with pytest.raises(UnknownKey, match="symmetric"):
        unseal_bulk(sealed, MINE, bytes(32))


def test_secrets_and_bulk_data_are_not_mistaken_for_each_other(keys: Keys) -> None:
    assert not MAGIC.startswith(BULK_MAGIC[:4])
    with pytest.raises(NotAnEnvelope):
        unseal(seal_bulk(b"x", MINE, KEY), MINE, keys[0])
    with pytest.raises(NotAnEnvelope):
        unseal_bulk(seal(b"x", MINE, keys[0]), MINE, KEY)


def test_keyed_hashes_differ_by_key_and_label(ring: KeyRing) -> None:
    hashes = {keyed_hash(key, label, b"x") for key in (KEY, bytes(32)) for label in ("api token", "secret AWS")}
    assert len(hashes) == 4
    assert ring.token_digest("bud_x") == keyed_hash(KEY, "api token", b"bud_x")
