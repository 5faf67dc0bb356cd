import FunctionSupport
import PCI
import Testing
import VirtioSpec

@testable import DeviceCheck

@Suite struct DeviceCheckTests {
    @Test func `a device without a fault passes every rule that concerns it`() throws {
        let results = try DeviceCheck.run(TamperedFunction(NetStub()))
        for result in results where result.verdict == .fail {
            Issue.record("\(result.id) \(result.subject): \(result.evidence)")
        }
        #expect(results.count >= 60)
        #expect(results.filter { $0.verdict == .pass }.count >= 60)
        #expect(Set(results.map(\.id)).count == results.count, "no id twice")
        #expect(results.allSatisfy { !$0.evidence.isEmpty && !$0.subject.isEmpty })
    }

    @Test func `each result is told at once, in order`() throws {
        var told: [CheckResult] = []
        let results = try DeviceCheck.run(TamperedFunction(NetStub()), only: ["DEV-P", "DEV-S-01"])
        {
            told.append($0)
        }
        #expect(told == results)
        #expect(told.count == 16)
        #expect(told.last?.id == "DEV-S-01")
    }

    @Test func `HI-J15: a host that refuses memory is no fault of the device`() throws {
        let function = try TamperedFunction(NetStub())
        let refusal = HostRefusal("limit/memlock", "this process may lock 0 bytes", remedy: "")
        function.refusesArenas = refusal
        var told: [CheckResult] = []
        let error = #expect(throws: PCIError.self) {
            _ = try DeviceCheck.run(function) { told.append($0) }
        }
        guard case .refused(let found) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(found == refusal)
        #expect(told.count > 30 && told.allSatisfy { $0.verdict != .fail })
    }

    @Test func `DEV-P-01, DEV-P-02: a foreign vendor or device is told`() throws {
        try expectFailures(["DEV-P-01"]) { $0.bytes[0] = 0x86 }
        try expectFailures(["DEV-P-02"]) { $0.bytes[3] = 0x20 }
    }

    @Test func `DEV-P-03, DEV-P-04: revision and subsystem of a modern device`() throws {
        try expectFailures(["DEV-P-03"]) { $0.bytes[ConfigurationHeader.revision] = 0 }
        try expectFailures(["DEV-P-04"]) {
            $0.patch(ConfigurationHeader.subsystemVendor, 0x0001_1af4)
        }
    }

    @Test func `DEV-P-05, DEV-P-06: header type and list bit`() throws {
        try expectFailures(["DEV-P-05"]) { $0.bytes[ConfigurationHeader.headerType] = 1 }
        try expectFailures(["DEV-P-06"]) { $0.bytes[ConfigurationHeader.status] = 0 }
    }

    @Test func `DEV-P-07, DEV-P-08: a list that loops, a pointer off its step`() throws {
        try expectFailures(["DEV-P-07", "DEV-C-01"]) {
            let first = Int(try $0.readConfiguration(ConfigurationHeader.capabilities, .byte))
            $0.bytes[first + 1] = UInt8(first)
        }
        try expectFailures(["DEV-P-08"]) {
            let first = try $0.readConfiguration(ConfigurationHeader.capabilities, .byte)
            $0.bytes[ConfigurationHeader.capabilities] = UInt8(first) | 2
        }
    }

    @Test func `DEV-P-09: ids that can be written`() throws {
        try expectFailures(["DEV-P-09"]) { $0.writable = [0] }
    }

    @Test func `DEV-P-10, DEV-P-15, DEV-C-08: BARs of odd or short length`() throws {
        try expectFailures(["DEV-P-10"]) { $0.barSizes[0] = 100_000 }
        try expectFailures(["DEV-P-15", "DEV-C-08"]) { $0.barSizes[0] = 64 }
    }

    @Test func `DEV-P-11, DEV-P-12, DEV-P-13: a command register that stays as it is`() throws {
        try expectFailures(["DEV-P-11", "DEV-P-12", "DEV-P-13"]) {
            $0.patch(ConfigurationHeader.command, 0x0010_0000)
        }
    }

    @Test func `DEV-P-14: no MSI-X`() throws {
        try expectFailures(["DEV-P-14"]) {
            let list = try CapabilityList($0)
            $0.bytes[try #require(list.first(MSIXTable.identifier)).offset] = 0x0f
        }
    }

    @Test(
        arguments: [
            ("DEV-C-01", VirtioCapabilityType.common), ("DEV-C-02", .notify),
            ("DEV-C-03", .interruptStatus), ("DEV-C-04", .device),
            ("DEV-C-05", .configurationAccess),
        ]
    )
    func `DEV-C-01, DEV-C-02, DEV-C-03, DEV-C-04, DEV-C-05: a structure is missing`(
        _ id: String,
        _ type: VirtioCapabilityType
    ) throws {
        try expectFailures([id]) { $0.bytes[try $0.capability(type) + 3] = 0x77 }
    }

    @Test func `DEV-C-06, DEV-C-07: a short capability, a BAR that cannot be`() throws {
        try expectFailures(["DEV-C-06"]) { $0.bytes[try $0.capability(.device) + 2] = 12 }
        try expectFailures(["DEV-C-07"]) { $0.bytes[try $0.capability(.device) + 4] = 6 }
    }

    @Test(
        arguments: [
            ("DEV-C-09", VirtioCapabilityType.common, UInt8(2)), ("DEV-C-10", .notify, 1),
            ("DEV-C-11", .device, 2),
        ]
    )
    func `DEV-C-09, DEV-C-10, DEV-C-11: a structure off its alignment`(
        _ id: String,
        _ type: VirtioCapabilityType,
        _ offset: UInt8
    ) throws {
        try expectFailures([id]) { $0.bytes[try $0.capability(type) + 8] = offset }
    }

    @Test func `DEV-C-12, DEV-C-13: structures that are too short`() throws {
        try expectFailures(["DEV-C-12", "DEV-R-01"]) {
            $0.patch(try $0.capability(.common) + 12, 40)
        }
        // Length 0 is no structure at all.
        try expectFailures(["DEV-C-13"]) { $0.patch(try $0.capability(.interruptStatus) + 12, 0) }
    }

    @Test func `DEV-C-14: structures one upon the other`() throws {
        try expectFailures(["DEV-C-14"]) {
            let common = try $0.readConfiguration(try $0.capability(.common) + 8, .long)
            $0.patch(try $0.capability(.interruptStatus) + 8, common)
        }
    }

    @Test func `DEV-C-15, DEV-C-16: notify addresses that cannot be`() throws {
        try expectFailures(["DEV-C-15"]) { $0.patch(try $0.capability(.notify) + 16, 3) }
        try expectFailures(["DEV-C-16"]) { $0.patch(try $0.capability(.notify) + 12, 2) }
    }

    @Test func `DEV-C-18: the window shows something else`() throws {
        try expectFailures(["DEV-C-18"]) {
            $0.bytes[try $0.capability(.configurationAccess) + VirtioCapability.accessBytes] = 99
        }
    }

    @Test func `DEV-R-03, DEV-R-04, DEV-R-05: queues that cannot be`() throws {
        try expectFailures(["DEV-R-03"], reading: .queueCount) { _ in 0 }
        try expectFailures(["DEV-R-04"], reading: .queueSize) { _ in 100 }
        try expectFailures(["DEV-R-05"], reading: .queueEnable) { _ in 1 }
    }

    @Test func `DEV-R-06, DEV-R-07, DEV-R-08: sizes that are not kept or given back`() throws {
        try expectFailures(["DEV-R-06"], reading: .queueSize) { max($0, 16) }
        try expectFailures(["DEV-R-07"]) { $0.deafTo = [.queueSize] }
        try expectFailures(["DEV-R-08"]) { function in
            var reads = 0
            function.answer = { offset, _, value in
                guard offset == UInt64(CommonConfiguration.queueSize.offset) else { return value }
                reads += 1
                return reads > 2 ? 128 : value
            }
        }
    }

    @Test func `DEV-R-09: addresses that are lost`() throws {
        try expectFailures(["DEV-R-09"]) { $0.deafTo = [.queueDriverHigh] }
    }

    @Test func `DEV-R-10, DEV-R-11, DEV-R-12: selectors and features that do not stay`() throws {
        try expectFailures(["DEV-R-10"]) { $0.deafTo = [.deviceFeatureSelect] }
        try expectFailures(["DEV-R-11"]) { function in
            var turn: UInt32 = 0
            function.answer = { offset, _, value in
                guard offset == UInt64(CommonConfiguration.deviceFeature.offset) else {
                    return value
                }
                turn += 1
                return value ^ turn
            }
        }
        try expectFailures(["DEV-R-12"]) { $0.deafTo = [.queueSelect] }
    }

    @Test func `DEV-R-13, DEV-R-14: a restless generation, vectors after reset`() throws {
        try expectFailures(["DEV-R-13"]) { function in
            var turn: UInt32 = 0
            function.answer = { offset, _, value in
                guard offset == UInt64(CommonConfiguration.configurationGeneration.offset) else {
                    return value
                }
                turn &+= 1
                return turn & 0xff
            }
        }
        try expectFailures(["DEV-R-14"], reading: .queueVector) { _ in 0 }
    }

    @Test func `DEV-R-15, DEV-R-16: registers of features that are offered`() throws {
        try expectFailures(["DEV-R-15"], reading: .queueReset) { _ in 1 }
        try expectFailures(["DEV-R-16"]) { $0.device.offeredFeatures.insert(.adminQueue) }
    }

    @Test func `DEV-S-01, DEV-S-04, DEV-S-05, DEV-S-09, DEV-S-10: all is refused`() throws {
        try expectFailures(["DEV-S-01"], reading: .deviceFeature) { $0 & ~1 }
        try expectFailures(
            ["DEV-S-04", "DEV-S-05", "DEV-S-09", "DEV-S-10"],
            reading: .deviceStatus
        ) {
            $0 & ~8
        }
    }

    @Test func `DEV-S-02, DEV-S-03, DEV-S-12: status bits that are not kept`() throws {
        try expectFailures(["DEV-S-02", "DEV-S-03"], reading: .deviceStatus) { $0 & ~1 }
        try expectFailures(["DEV-S-12"], reading: .deviceStatus) { $0 & ~0x80 }
    }

    @Test func `DEV-S-06, DEV-S-07, DEV-S-08: features that are not judged`() throws {
        try expectFailures(["DEV-S-06"], reading: .driverFeature) { $0 ^ 1 }
        try expectFailures(["DEV-S-07"]) { function in
            function.answer = { offset, _, value in
                switch offset {
                case UInt64(CommonConfiguration.driverFeature.offset): value | 1 << 27
                case UInt64(CommonConfiguration.deviceStatus.offset):
                    value & 3 == 3 ? value | 8 : value
                default: value
                }
            }
        }
        let function = try TamperedFunction(NetStub())
        #expect(try #require(try function.verdicts(["DEV-S-08"])["DEV-S-08"]).verdict == .pass)
        function.answer = { offset, _, value in
            offset == UInt64(CommonConfiguration.deviceStatus.offset) && value & 3 == 3
                ? value | 8 : value
        }
        let kept = try #require(try function.verdicts(["DEV-S-08"])["DEV-S-08"])
        #expect(kept.verdict == .notApplicable)
    }

    @Test(
        arguments: [
            (0, ["DEV-R-02"]), (4, ["DEV-S-11"]), (0x80, ["DEV-S-13", "DEV-X-04"]),
            (4, ["DEV-X-06"]),
        ] as [(UInt32, [String])]
    )
    func `DEV-R-02, DEV-S-11, DEV-S-13, DEV-X-04, DEV-X-06: a status that sticks`(
        _ bit: UInt32,
        _ ids: [String]
    ) throws {
        try expectFailures(ids, beside: ["DEV-S", "DEV-R-0", "DEV-Q-03"]) { function in
            var reads = 0
            var sticks = false
            function.answer = { offset, _, value in
                guard offset == UInt64(CommonConfiguration.deviceStatus.offset) else {
                    return value
                }
                reads += 1
                sticks = sticks || value & bit != 0 || (bit == 0 && reads > 1)
                return sticks ? value | max(bit, 1) : value
            }
        }
    }

    @Test func `DEV-R-01: a device that never comes out of reset`() throws {
        try expectFailures(["DEV-R-01"], reading: .deviceStatus) { $0 | 1 }
    }

    @Test func `DEV-R-01: a device that does not reset is not driven any further`() throws {
        let function = try TamperedFunction(NetStub())
        function.answer = { offset, _, value in
            offset == UInt64(CommonConfiguration.deviceStatus.offset) ? value | 1 : value
        }
        let found = try function.verdicts(["DEV-R-0", "DEV-S-10"])
        #expect(found["DEV-S-10"]?.verdict == .fail)
        let driverOK = UInt32(DeviceStatus.driverOK.rawValue)
        #expect(function.statuses.allSatisfy { $0 & driverOK == 0 })
    }

    @Test func `DEV-R-01, DEV-X-06: what stops the checks is told, whatever was asked for`() throws
    {
        let hidden = try TamperedFunction(NetStub())
        hidden.bytes[try hidden.capability(.common) + 3] = 0x77
        #expect(try hidden.verdicts(["DEV-X"])["DEV-R-01"]?.verdict == .fail)
        let stuck = try TamperedFunction(NetStub())
        stuck.answer = { offset, _, value in
            offset == UInt64(CommonConfiguration.deviceStatus.offset) ? value | 1 : value
        }
        #expect(try stuck.verdicts(["DEV-P"])["DEV-X-06"]?.verdict == .fail)
    }

    @Test func `DEV-C-17: two shared memory regions of one id`() throws {
        try expectFailures(["DEV-C-17"]) { function in
            for type in [VirtioCapabilityType.device, .interruptStatus] {
                let at = try function.capability(type)
                function.bytes[at + 2] = 24
                function.bytes[at + 3] = VirtioCapabilityType.sharedMemory.rawValue
                function.bytes[at + 5] = 7
            }
        }
    }

    @Test func `DEV-N-06: a MAC address that does not stand still`() throws {
        try expectFailures(["DEV-N-06"]) { function in
            var reads: UInt32 = 0
            function.answer = { offset, width, value in
                // The common configuration, at the start of the BAR, stays as it is.
                guard offset >= UInt64(CommonConfiguration.leastLength), width == .byte else {
                    return value
                }
                reads += 1
                return value ^ (reads & 0x10)
            }
        }
    }

    @Test func `DEV-N-01, DEV-N-02, DEV-N-03, DEV-N-04, DEV-N-05: configuration`() throws {
        try expectFailures(["DEV-N-01"]) { $0.device.configuration[0] = 1 }
        try expectFailures(["DEV-N-02"]) { $0.device.configuration[7] = 1 }
        try expectFailures(["DEV-N-03"]) { $0.device.configuration[8] = 0 }
        try expectFailures(["DEV-N-04"]) { $0.device.configuration[10...11] = [20, 0] }
        try expectFailures(["DEV-N-05"]) { $0.device.configuration[8] = 4 }
    }
}
