import Testing
import VirtioSpec

@testable import Virtio

@Suite struct DeviceStatusMachineTests {
    /// A machine after the given writes, and the outcome of the last.
    private func after(
        _ writes: [UInt8],
        acceptable: Bool = true
    ) -> (DeviceStatusMachine, DeviceStatusMachine.Outcome?) {
        var machine = DeviceStatusMachine()
        var outcome: DeviceStatusMachine.Outcome?
        for write in writes {
            let result = machine.write(DeviceStatus(rawValue: write)) { acceptable }
            if result == .reset { machine.completeReset() }
            outcome = result
        }
        return (machine, outcome)
    }

    @Test func `the usual order leads to a start`() {
        let (machine, outcome) = after([0, 1, 3, 11, 15])
        #expect(machine.status.rawValue == 15)
        #expect(outcome == .start)
        #expect(machine.isRunning)
    }

    @Test func `DRIVER_OK a second time is no second start`() {
        let (_, outcome) = after([0, 1, 3, 11, 15, 15])
        #expect(outcome == .updated)
    }

    @Test(arguments: [[1, 3, 1], [1, 3, 2], [1, 3, 11, 9], [1, 3, 11, 15, 11], [1, 3, 64]])
    func `HI-H12, AVQ-D-312: a bit is not taken back without a reset`(_ writes: [UInt8]) {
        let (before, _) = after(writes.dropLast())
        let (machine, outcome) = after(writes)
        #expect(outcome == .refused)
        #expect(machine == before)
    }

    @Test(arguments: [[1, 3, 7], [7], [1, 3, 15], [15], [4]])
    func `HI-H12: DRIVER_OK before FEATURES_OK starts nothing`(_ writes: [UInt8]) {
        let (machine, outcome) = after(writes)
        #expect(outcome == .refused)
        #expect(!machine.status.contains(.driverOK))
    }

    @Test func `HI-H12: FEATURES_OK does not stay with features that cannot be served`() {
        let (machine, outcome) = after([1, 3, 11], acceptable: false)
        #expect(outcome == .featuresRefused)
        #expect(machine.status.rawValue == 3)
        let (refused, last) = after([1, 3, 11, 15], acceptable: false)
        #expect(last == .refused || last == .featuresRefused)
        #expect(!refused.isRunning)
    }

    @Test func `HI-H12: FEATURES_OK from nobody's driver is refused`() {
        #expect(after([8]).1 == .refused)
        #expect(after([9]).0.status == .acknowledge)
    }

    @Test func `HI-H12: FAILED is kept, and nothing starts any more`() {
        let (machine, _) = after([1, 3, 11, 0x8b, 0x8f])
        #expect(machine.status.rawValue == 0x8b)
        #expect(!machine.isRunning)
        let (running, _) = after([1, 3, 11, 15, 0x8f])
        #expect(running.status.rawValue == 0x8f)
        #expect(!running.isRunning)
        let (both, outcome) = after([1, 3, 11, 0x8f])
        #expect(both.status.rawValue == 0x8b)
        #expect(outcome == .updated)
    }

    @Test func `HI-H12, AVQ-D-312: unknown bits and bits of the device are ignored`() {
        let (machine, outcome) = after([0x71, 0x73, 0x7b, 0x7f])
        #expect(machine.status.rawValue == 15)
        #expect(outcome == .start)
    }

    @Test func `HI-H13: a reset always succeeds, and shows when it is complete`() {
        for writes: [UInt8] in [[1], [1, 3, 11, 15], [1, 3, 0x83], [1, 3, 11, 15, 0x8f]] {
            var (machine, _) = after(writes)
            _ = machine.demandReset()
            let outcome = machine.write([]) { true }
            #expect(outcome == .reset)
            #expect(machine.status != [])
            machine.completeReset()
            #expect(machine == DeviceStatusMachine())
        }
    }

    @Test func `the driver is told of a failure once, and only after DRIVER_OK`() {
        var (machine, _) = after([1, 3, 11])
        let early = machine.demandReset()
        #expect(!early)
        #expect(machine.status.contains(.needsReset))
        (machine, _) = after([1, 3, 11, 15])
        let first = machine.demandReset()
        #expect(first)
        let second = machine.demandReset()
        #expect(!second)
        #expect(!machine.isRunning)
    }

    @Test func `HI-H15: a device that failed does not start`() {
        var (machine, _) = after([1, 3, 11])
        _ = machine.demandReset()
        let outcome = machine.write(DeviceStatus(rawValue: 0x4f)) { true }
        #expect(outcome == .refused)
        #expect(machine.status.rawValue == 0x4b)
    }

    @Test func `AVQ-D-219: a failed translation never stands alone`() {
        var (machine, _) = after([1, 3, 11, 15])
        _ = machine.demandReset(mmuFault: true)
        #expect(machine.status.isSuperset(of: [.mmuFail, .needsReset]))
    }

    @Test func `HI-H12: no sequence of writes takes a bit back or starts before FEATURES_OK`() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<500 {
            var machine = DeviceStatusMachine()
            for _ in 0..<40 {
                let before = machine.status
                let value = DeviceStatus(rawValue: UInt8.random(in: 1...255, using: &random))
                let outcome = machine.write(value) { Bool.random() }
                #expect(machine.status.isSuperset(of: before))
                #expect(outcome != .start || before.contains(.featuresOK))
                #expect(machine.status.isDisjoint(with: .deviceOwned))
            }
        }
    }
}
