import FunctionSupport
import PCI
import Testing
import VirtioSpec

@testable import Virtio

@Suite struct PCIStructuresTests {
    private let function: TamperedFunction<EchoDevice>

    init() throws {
        function = try TamperedFunction(EchoDevice())
    }

    /// Offsets in a capability.
    private static let length = 2
    private static let bar = 4
    private static let offset = 8
    private static let size = 12
    private static let multiplier = 16

    private func refusal() -> String {
        do {
            _ = try PCITransport(function: function)
            return "none"
        } catch {
            return "\(error)"
        }
    }

    @Test(arguments: [VirtioCapabilityType.common, .notify], [6, 7, 0x80, 0xff] as [UInt8])
    func `HI-H6: a structure that we need in a reserved BAR is refused`(
        _ type: VirtioCapabilityType,
        _ bar: UInt8
    ) throws {
        function.bytes[try function.capability(type) + Self.bar] = bar
        #expect(refusal().hasPrefix("pci/cap:"))
    }

    @Test(
        arguments: [
            (0, 0x8001), (0x8000, 64), (0x7fff, 64), (0xffff_fffc, 64), (0xffff_fffc, 0xffff_ffff),
            (0, 0), (0, 55), (2, 64), (0x3f, 64),
        ] as [(UInt32, UInt32)]
    )
    func `HI-H6: a common structure outside its BAR, too short or unaligned is refused`(
        _ offset: UInt32,
        _ size: UInt32
    ) throws {
        let at = try function.capability(.common)
        function.patch(at + Self.offset, offset)
        function.patch(at + Self.size, size)
        #expect(refusal().hasPrefix("pci/cap:"))
    }

    @Test(
        arguments: [(0x8000, 4), (0x3001, 4), (0x3000, 1), (0x3000, 0), (0x3000, 0x5001)]
            as [(UInt32, UInt32)]
    )
    func `HI-H6: a notify structure outside its BAR, too short or odd is refused`(
        _ offset: UInt32,
        _ size: UInt32
    ) throws {
        let at = try function.capability(.notify)
        function.patch(at + Self.offset, offset)
        function.patch(at + Self.size, size)
        #expect(refusal().hasPrefix("pci/cap:"))
    }

    @Test func `HI-H6: a capability that is too short for its type is no capability`() throws {
        for type in [VirtioCapabilityType.common, .notify] {
            let function = try TamperedFunction(EchoDevice())
            function.bytes[try function.capability(type) + Self.length] = 15
            #expect(throws: VirtioError.self) { try PCITransport(function: function) }
        }
    }

    @Test func `HI-H6: a BAR that is absent holds nothing`() {
        function.barSizes[0] = 0
        #expect(refusal().hasPrefix("pci/cap:"))
    }

    @Test func `HI-H6: a capability that runs out of configuration space is no capability`()
        throws
    {
        // Behind the end everything reads as ones, which must not become an offset.
        try function.insert(
            [0x09, 0, 24, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            at: 0xf0
        )
        let transport = try PCITransport(function: function)
        #expect(transport.sharedMemory.isEmpty)
    }

    @Test func `HI-H6: a device structure that is bad is not there`() throws {
        function.bytes[try function.capability(.device) + Self.bar] = 5
        let transport = try PCITransport(function: function)
        #expect { try transport.readConfiguration(0, 1) } throws: {
            "\($0)".hasPrefix("cfg/range")
        }
    }

    @Test func `VPN-M-15, HI-H6: capabilities of unknown type are skipped`() throws {
        for (index, type) in ([0, 6, 7, 9, 10, 0x7f, 0xef, 0xff] as [UInt8]).enumerated() {
            let capability: [UInt8] = [0x09, 0, 4, type]
            try function.insert(capability, at: 0xc0 + 4 * index)
        }
        try function.insert([0x05, 0, 0xff, 0xff], at: 0xf0)
        let transport = try PCITransport(function: function)
        #expect(try transport.queueCount() == 2)
    }

    @Test func `HI-H5: a list that does not end is refused`() throws {
        function.bytes[try function.capability(.common) + 1] = 0x40
        #expect(refusal().hasPrefix("pci/cap-loop"))
    }

    @Test func `HI-H7: the first usable capability of a type counts`() throws {
        // A second common structure where all registers read 0, in front of the real one.
        let elsewhere = VirtioCapability(.common, offset: 0x100, length: 64)
        try function.insert(elsewhere.encoded())
        #expect(try PCITransport(function: function).deviceFeatures() == [])
        // Now unusable: the real one counts again.
        function.bytes[0xc0 + Self.bar] = 6
        #expect(try PCITransport(function: function).deviceFeatures().contains(.version1))
    }

    @Test func `HI-H7: longer capabilities and structures are taken`() throws {
        let at = try function.capability(.common)
        function.bytes[at + Self.length] = 40
        function.patch(at + Self.size, 0x1000)
        #expect(try PCITransport(function: function).queueCount() == 2)
    }

    @Test(arguments: [1, 3, 6, 0x8001, 0xffff_ffff] as [UInt32])
    func `HI-H8: a multiplier that is neither 0 nor a power of two is refused`(
        _ multiplier: UInt32
    ) throws {
        function.patch(try function.capability(.notify) + Self.multiplier, multiplier)
        #expect(refusal().hasPrefix("pci/notify-range"))
    }

    @Test func `HI-H8: a peer-notify multiplier is checked likewise`() throws {
        let function = try TamperedFunction(WindowedEchoDevice())
        function.patch(try function.capability(.peerNotify) + Self.multiplier, 5)
        #expect(throws: VirtioError.self) { try PCITransport(function: function) }
    }

    @Test func `HI-H8: a notify address past its structure is refused`() throws {
        function.patch(try function.capability(.notify) + Self.size, 5)
        let transport = try PCITransport(function: function)
        let ring = try EchoRing(transport, queue: 1)
        #expect {
            _ = try DriverHandshake.run(transport, wanted: []) { (_) throws(VirtioError) in
                try ring.enable()
            }
        } throws: {
            "\($0)".hasPrefix("pci/notify-range")
        }
        #expect(try transport.status().contains(.failed))
    }

    @Test func `HI-H8: no notify offset overflows`() throws {
        let notify = VirtioCapability(.notify, offset: 0, length: .max, multiplier: 1 << 31)
        #expect(PCIStructures.notifyOffset(.max, of: notify) == 0xffff << 31)
        let short = VirtioCapability(.notify, offset: 16, length: 1, multiplier: 0)
        #expect(PCIStructures.notifyOffset(0, of: short) == nil)
        let exact = VirtioCapability(.notify, offset: 16, length: 6, multiplier: 4)
        #expect(PCIStructures.notifyOffset(1, of: exact) == 20)
        #expect(PCIStructures.notifyOffset(2, of: exact) == nil)
    }

    @Test func `HI-H8: with multiplier 0 all queues share one address`() throws {
        function.patch(try function.capability(.notify) + Self.multiplier, 0)
        let transport = try PCITransport(function: function)
        let ring = try EchoRing(transport, queue: 0)
        _ = try DriverHandshake.run(transport, wanted: []) { (_) throws(VirtioError) in
            try ring.enable()
        }
        #expect(try ring.echo([5, 6]) == [5, 6])
    }

    @Test func `a function that is not virtio is refused`() throws {
        function.bytes[2] = 0xd3
        function.bytes[3] = 0x10
        #expect(refusal().hasPrefix("pci/cap:"))
    }

    @Test func `a transitional function has its type in the subsystem id`() throws {
        function.bytes[2] = 0x00
        function.bytes[3] = 0x10
        function.bytes[ConfigurationHeader.subsystem] = 1
        function.bytes[ConfigurationHeader.subsystem + 1] = 0
        #expect(try PCITransport(function: function).deviceType == .net)
    }
}
