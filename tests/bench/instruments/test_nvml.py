"""Which board is which, what it says, and that no driver is no error."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pynvml
import pytest

from kerneldyno.bench.instruments import nvml

A, B, C = "GPU-aaaa1111-0000-0000-0000-000000000000", "GPU-bbbb2222-0000-0000-0000-000000000000", "GPU-aaaa3333-0000-0000-0000-000000000000"


@pytest.fixture
def three(driver, board):
    return driver(board(A, bus="00000000:3B:00.0"), board(B, bus="00000000:5E:00.0"), board(C, bus="00000000:AF:00.0"))


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [A, B, C]),
        ("", []),
        ("-1", []),
        ("2,0", [C, A]),
        ("1, 2", [B, C]),
        ("0,7,1", [A]),  # what follows an entry that names nothing is not seen
        ("0,-1,1", [A]),
        ("1,1", [B]),
        ("GPU-bbbb", [B]),
        ("GPU-aaaa3333,0", [C, A]),
        ("GPU-aaaa", []),  # two begin so
        ("MIG-bbbb", []),
        ("nonsense", []),
    ],
)
def test_visible_devices_are_counted_as_cuda_counts_them(three, visible, expected) -> None:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    found = nvml.devices(three, environ)
    assert [gpu.uuid for gpu in found] == expected
    assert [gpu.index for gpu in found] == list(range(len(expected)))


def test_what_a_board_says(three) -> None:
    gpu = nvml.devices(three, {})[1]
    assert (gpu.name, gpu.memory_bytes, gpu.used_bytes, gpu.capability) == ("NVIDIA H100", 80 * 2**30, 2**20, (9, 0))
    assert (gpu.driver, gpu.power_limit_w, gpu.max_sm_mhz, gpu.sm_mhz(), gpu.temperature_c()) == ("580.65.06", 700.0, 1980.0, 1755.0, 41.0)
    assert gpu.pci_bus_id == "00000000:5E:00.0"
    assert (gpu.power_w(), gpu.energy_j()) == (300.0, 1.0)


def test_clock_events_are_words_and_full_load_is_no_slowdown(driver, board) -> None:
    (gpu,) = nvml.devices(driver(board(A, events=0x1 | 0x4)), {})
    assert (gpu.clock_events(), gpu.slowdowns()) == (("power cap",), ())
    (hot,) = nvml.devices(driver(board(A, events=0x4 | 0x40 | 0x2)), {})
    assert hot.clock_events() == ("clocks set by the user", "power cap", "thermal slowdown by the hardware")
    assert hot.slowdowns() == ("thermal slowdown by the hardware",)
    (idle,) = nvml.devices(driver(board(A, events=0x1)), {})
    assert idle.clock_events() == ()


def test_the_averaged_power_reading_is_used_only_where_it_is_not_averaged(driver, board) -> None:
    (ampere,) = nvml.devices(driver(board(A, instant_mw=None, capability=(8, 0))), {})
    assert ampere.power_w() is None
    (volta,) = nvml.devices(driver(board(A, instant_mw=None, capability=(7, 0))), {})
    assert volta.power_w() == 250.0


def test_a_reading_of_0_is_none(driver, board) -> None:
    (mute,) = nvml.devices(driver(board(A, instant_mw=0, energy_mj=0)), {})
    assert (mute.power_w(), mute.energy_j()) == (None, None)
    (volta,) = nvml.devices(driver(board(A, instant_mw=None, average_mw=0, capability=(7, 0))), {})
    assert volta.power_w() is None


def test_the_driver_of_these_tests_looks_like_the_module(driver) -> None:
    """Also guards the names and numbers that are asked of the real one, since whatever is not there reads as None."""
    asked = {name: function for name, function in vars(driver).items() if name.startswith("nvml")}
    assert {"nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetFieldValues"} <= asked.keys()
    for name, function in asked.items():
        wanted = [p for p in inspect.signature(getattr(pynvml, name)).parameters.values() if p.default is p.empty]
        assert len(inspect.signature(function).parameters) - 1 == len(wanted), name
    assert nvml.POWER_INSTANT == pynvml.NVML_FI_DEV_POWER_INSTANT
    assert nvml.SM_CLOCK == pynvml.NVML_CLOCK_SM
    assert nvml.CORE_TEMPERATURE == pynvml.NVML_TEMPERATURE_GPU
    source = inspect.getsource(nvml)
    assert {name for name in dir(pynvml) if f'"{name}"' in source and name.startswith("nvml")} == asked.keys()


def test_the_reasons_for_a_slow_clock_are_the_drivers(driver) -> None:
    bits = {value for name, value in vars(pynvml).items() if name.startswith(("nvmlClocksEventReason", "nvmlClocksThrottleReason"))}
    assert set(nvml.CLOCK_EVENTS) <= bits
    assert pynvml.nvmlClocksThrottleReasonHwSlowdown in nvml.SLOWDOWNS
    assert pynvml.nvmlClocksEventReasonSwPowerCap not in nvml.SLOWDOWNS


def test_torch_is_matched_by_uuid_then_by_address_then_by_number(three) -> None:
    assert nvml.find(0, uuid=B.removeprefix("GPU-"), api=three).uuid == B
    assert nvml.find(0, pci_bus_id="0000:af:00.0", api=three).uuid == C
    assert nvml.find(2, api=three).uuid == C
    assert nvml.find(3, api=three) is None


def test_a_board_in_slices_shows_its_first_and_each_by_name(driver, board) -> None:
    boards = driver(board(A, instances=["MIG-1111", "MIG-2222"]), board(B))
    assert [gpu.uuid for gpu in nvml.devices(boards, {})] == ["MIG-1111", B]
    (second,) = nvml.devices(boards, {"CUDA_VISIBLE_DEVICES": "MIG-2222"})
    assert (second.uuid, second.name, second.memory_bytes) == ("MIG-2222", "NVIDIA H100 MIG 1g.10gb", 10 * 2**30)
    assert second.temperature_c() == 41.0  # the board's


def test_a_function_that_the_driver_lacks_is_not_measured(driver, board) -> None:
    class Old(driver):
        nvmlDeviceGetClockInfo = None

        def nvmlDeviceGetTemperature(self, handle, sensor):
            raise self.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    (gpu,) = nvml.devices(Old(board(A, energy_mj=None)), {})
    assert (gpu.sm_mhz(), gpu.temperature_c(), gpu.energy_j()) == (None, None, None)


def test_no_driver_is_an_empty_list(monkeypatch) -> None:
    monkeypatch.setattr(nvml, "_driver", lambda: None)
    assert nvml.devices() == []
    assert nvml.find(0) is None


def test_asking_for_devices_does_not_import_torch() -> None:
    code = "import sys; from kerneldyno.bench.instruments import nvml; nvml.devices(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
