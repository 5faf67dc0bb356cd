import FunctionSupport
import GuestMemory
import HostSystem
import PCI
import Testing
import VirtioSpec

@testable import Virtio

@Suite struct PCITransportTests {
    private let function: TamperedFunction<EchoDevice>
    private let transport: PCITransport

    init() throws {
        function = try TamperedFunction(EchoDevice())
        transport = try PCITransport(function: function)
        transport.resetLimit = 20
    }

    /// Makes a register of the common configuration read as something else.
    private func fix(_ register: CommonConfiguration, _ value: UInt32) {
        fix([register: value])
    }

    private func fix(_ values: [CommonConfiguration: UInt32]) {
        function.answer = { offset, _, value in
            let register = values.first { UInt64($0.key.offset) == offset }
            return register?.value ?? value
        }
    }

    private func failure(_ body: () throws -> Void) -> String {
        do {
            try body()
            return "none"
        } catch {
            return "\(error)"
        }
    }

    private func masters() throws -> Bool {
        let command = try function.base.readConfiguration(ConfigurationHeader.command, .word)
        return command & UInt32(CommandRegister.busMaster.rawValue) != 0
    }

    @Test func `HI-H13: the function reaches no memory before its first reset`() throws {
        let transport = try PCITransport(function: function)
        _ = try transport.deviceFeatures()
        #expect(try !masters(), "rings of an earlier driver may still be in use")
        try transport.reset()
        #expect(try masters())
    }

    @Test func `HI-A53: a device that seems to be gone is kept from memory`() throws {
        let transport = try PCITransport(function: function)
        try transport.reset()
        function.answer = { _, width, _ in .max >> UInt32(32 - 8 * width.rawValue) }
        #expect(throws: VirtioError.self) { try transport.status() }
        #expect(transport.isGone)
        #expect(try !masters())
    }

    @Test func `HI-A50: a reset that never completes is given up`() {
        fix(.deviceStatus, 1)
        let clock = ContinuousClock()
        let started = clock.now
        #expect(failure { try transport.reset() }.hasPrefix("init/reset-timeout"))
        #expect(clock.now - started < .seconds(2))
    }

    @Test func `HI-A51: a generation that never settles is given up after 8 attempts`() {
        var generation: UInt32 = 0
        var reads = 0
        function.answer = { offset, _, value in
            if offset == 0x2000 { reads += 1 }
            guard offset == UInt64(CommonConfiguration.configurationGeneration.offset) else {
                return value
            }
            generation = (generation + 1) & 0x7f
            return generation
        }
        #expect(failure { _ = try transport.readConfiguration(0, 4) }.hasPrefix("cfg/unstable"))
        #expect(reads == 8)
    }

    @Test func `HI-A51: a generation that settles gives the bytes that belong to it`() throws {
        function.answer = { [device = function.device] offset, _, value in
            // The device changes in the middle of the first attempt.
            if offset == 0x2000, device.configuration[4] == 5 {
                device.configuration = [9, 9, 9, 9, 9, 9, 9, 9]
            }
            return value
        }
        #expect(try transport.readConfiguration(0, 8) == [9, 9, 9, 9, 9, 9, 9, 9])
    }

    @Test(arguments: [(0, 9), (8, 1), (9, 0), (-1, 1), (0, -1), (Int.max, 1), (1, Int.max)])
    func `HI-H22: configuration outside the structure is not read`(_ offset: Int, _ count: Int) {
        #expect(
            failure { _ = try transport.readConfiguration(offset, count) }
                .hasPrefix("cfg/range")
        )
    }

    @Test func `configuration is read with the width of its fields`() throws {
        for (offset, count) in [(0, 1), (1, 2), (2, 2), (0, 4), (3, 4), (0, 8), (2, 6), (8, 0)] {
            let expected = Array(function.device.configuration[offset..<(offset + count)])
            #expect(try transport.readConfiguration(offset, count) == expected)
        }
        let before = function.accesses
        _ = try transport.readConfiguration(4, 4)
        #expect(function.accesses - before == 3)
    }

    @Test func `HI-A53, VPN-M-18: ones in the status end all access`() throws {
        let ring = try EchoRing(transport, queue: 0)
        _ = try DriverHandshake.run(transport, wanted: []) { (_) throws(VirtioError) in
            try ring.enable()
        }
        function.isGone = true
        #expect(failure { _ = try transport.status() }.hasPrefix("pci/device-gone"))
        #expect(transport.isGone)
        let accesses = function.accesses
        let attempts: [() throws -> Void] = [
            { _ = try transport.status() }, { try transport.reset() },
            { try transport.notifyQueue(0) }, { _ = try transport.queueCount() },
            { _ = try transport.readConfiguration(0, 1) },
            { _ = try transport.deviceFeatures() }, { try transport.setStatus([]) },
            { _ = try transport.mapPeerWindow(bar: 2, offset: 0, size: 1) },
        ]
        for attempt in attempts { #expect(failure(attempt).hasPrefix("pci/device-gone")) }
        #expect(function.accesses == accesses)
    }

    @Test func `HI-A53: ones in any register make the driver look at the status`() {
        function.isGone = true
        #expect(failure { _ = try transport.queueLimit(0) }.hasPrefix("pci/device-gone"))
        #expect(function.accesses <= 4)
    }

    @Test func `HI-A53: ones that are a value are no reason to stop`() throws {
        fix(.queueSize, 0xffff)
        #expect(try transport.queueLimit(0) == 32768)
        #expect(!transport.isGone)
    }

    @Test func `VPN-M-18: ones in the vendor id are no device`() {
        function.isGone = true
        #expect(
            failure { _ = try PCITransport(function: function) }.hasPrefix("pci/device-gone")
        )
    }

    @Test func `HI-A53: a function that goes during a reset does not hold the driver up`() {
        transport.resetLimit = 60_000
        function.isGone = true
        #expect(failure { try transport.reset() }.hasPrefix("pci/device-gone"))
    }

    @Test func `HI-A54: no queues are refused, too many are cut`() throws {
        fix(.queueCount, 0)
        #expect(failure { _ = try transport.queueCount() }.hasPrefix("cfg/range"))
        fix(.queueCount, 0xffff)
        #expect(try transport.queueCount() == 1024)
    }

    @Test(
        arguments: [
            (0, 0), (1, 1), (3, 2), (12, 8), (0x8000, 0x8000), (0x8001, 0x8000), (0xfffe, 0x8000),
        ] as [(UInt32, UInt16)]
    )
    func `HI-A54: a queue size is cut to one that a ring can have`(
        _ claimed: UInt32,
        _ served: UInt16
    ) throws {
        fix(.queueSize, claimed)
        #expect(try transport.queueLimit(0) == served)
    }

    @Test func `a queue larger than the device allows is not enabled`() throws {
        let ring = try EchoRing(transport, queue: 0)
        fix(.queueSize, 4)
        #expect(failure { try ring.enable() }.hasPrefix("ring/size"))
        fix(.queueSize, 0)
        #expect(failure { try ring.enable() }.hasPrefix("ring/size"))
        #expect(failure { _ = try transport.queueLimit(65536) }.hasPrefix("cfg/range"))
        #expect(failure { _ = try transport.queueLimit(-1) }.hasPrefix("cfg/range"))
    }

    @Test func `HI-H8: a notify offset past the structure keeps the queue off`() throws {
        let ring = try EchoRing(transport, queue: 0)
        fix(.queueNotifyOffset, 2)
        #expect(failure { try ring.enable() }.hasPrefix("pci/notify-range"))
        #expect(failure { try transport.notifyQueue(0) }.hasPrefix("pci/notify-range"))
    }

    @Test(arguments: [(1, 1), (0, 1), (65535, 2), (2, 0xffff)] as [(UInt32, UInt32)])
    func `HI-H9: admin queues among the others or past the last number are refused`(
        _ index: UInt32,
        _ count: UInt32
    ) {
        fix([.adminQueueIndex: index, .adminQueueCount: count])
        #expect(failure { _ = try transport.adminQueues() }.hasPrefix("pci/admin-range"))
    }

    @Test func `HI-H9: admin queues behind the others are taken`() throws {
        #expect(try transport.adminQueues() == nil)
        fix([.adminQueueIndex: 2, .adminQueueCount: 3])
        #expect(try transport.adminQueues() == 2..<5)
        fix([.adminQueueIndex: 65535, .adminQueueCount: 1])
        #expect(try transport.adminQueues() == 65535..<65536)
    }

    @Test func `HI-H11: a vector that the device refuses is an error`() throws {
        fix(.configurationVector, 0xffff)
        #expect(failure { try transport.bindConfigurationVector(0) }.hasPrefix("pci/vector"))
        #expect(failure { _ = try transport.interrupt(3) }.hasPrefix("pci/vector"))
    }

    @Test func `a queue that stays off is an error`() throws {
        let ring = try EchoRing(transport, queue: 0)
        function.deafTo = [.queueEnable]
        _ = failure {
            _ = try DriverHandshake.run(transport, wanted: []) { (_) throws(VirtioError) in
                #expect(failure { try ring.enable() }.hasPrefix("init/queue"))
            }
        }
        #expect(failure { try transport.notifyQueue(0) }.hasPrefix("pci/notify-range"))
    }

    @Test func `HI-A52: interrupts for nothing wake their reader and disturb nobody`() throws {
        let ring = try EchoRing(transport, queue: 0)
        let configuration = try transport.interrupt(0)
        for _ in 0..<10_000 {
            function.base.raise(0)
            function.base.raise(2)
        }
        #expect(configuration.drain() == 10_000)
        _ = try DriverHandshake.run(transport, wanted: []) { (_) throws(VirtioError) in
            try ring.enable()
        }
        for _ in 0..<10_000 { function.base.raise(0) }
        #expect(try ring.echo([1]) == [1])
        #expect(ring.interrupt.drain() == 1)
        #expect(function.base.strayInterrupts == 10_000)
    }

    @Test func `arenas lie apart and their addresses are used again`() throws {
        let first = try transport.makeArena(size: 4096)
        let second = try transport.makeArena(size: 1 << 22)
        #expect(second.deviceAddress > first.deviceAddress + 4096)
        try transport.releaseArena(first)
        let third = try transport.makeArena(size: 8192)
        #expect(third.deviceAddress == first.deviceAddress)
        #expect(failure { _ = try transport.makeArena(size: Int.max) }.hasPrefix("limit/memory"))
        #expect(failure { _ = try transport.makeArena(size: 0) }.hasPrefix("limit/memory"))
        #expect(failure { _ = try transport.makeArena(size: -1) }.hasPrefix("limit/memory"))
    }

    @Test func `no answers of a device trap its driver`() throws {
        var random = SystemRandomNumberGenerator()
        function.answer = { _, width, value in
            guard Int.random(in: 0..<4) == 0 else { return value }
            return UInt32.random(in: 0...(.max)) >> UInt32(32 - 8 * width.rawValue)
        }
        for _ in 0..<500 {
            for offset in 0xc0..<0xf0 {
                function.bytes[offset] = UInt8.random(in: 0...255, using: &random)
            }
            function.bytes[ConfigurationHeader.capabilities] = Bool.random() ? 0xc0 : 0x40
            guard let transport = try? PCITransport(function: function) else { continue }
            transport.resetLimit = 0
            guard let ring = try? EchoRing(transport, queue: 0) else { continue }
            _ = try? DriverHandshake.run(transport, wanted: .accessPlatform) {
                (_) throws(VirtioError) in
                try ring.enable()
            }
            _ = try? ring.echo([1])
            _ = try? transport.readConfiguration(0, 8)
            _ = try? transport.adminQueues()
            try? transport.releaseArena(ring.arena)
        }
        function.answer = nil
        function.bytes = [:]
        let last = try PCITransport(function: function)
        let ring = try EchoRing(last, queue: 0)
        _ = try DriverHandshake.run(last, wanted: []) { (_) throws(VirtioError) in
            try ring.enable()
        }
        #expect(try ring.echo([2]) == [2])
    }
}
