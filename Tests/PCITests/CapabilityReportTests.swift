import HostSupport
import PCI
import Testing
import VirtioSpec

@Suite struct CapabilityReportTests {
    private let bars = BARSizes(PCIResourceTexts.oneBAR)

    private func report(_ space: ConfigurationBytes, bars: BARSizes? = nil) -> CapabilityReport {
        CapabilityReport(ConfigurationImage(space.bytes), bars: bars ?? self.bars)
    }

    @Test func `a virtio-net function is taken apart`() throws {
        let report = report(.net())
        #expect(report.problems.isEmpty)
        #expect(report.capabilities.flatMap(\.problems) == [])
        #expect(
            report.capabilities.compactMap(\.virtio?.type)
                == [.common, .interruptStatus, .device, .notify, .configurationAccess]
        )
        #expect(report.virtio(.notify).first?["multiplier"] == .number(4))
        #expect(report.messageVectors == 3)
        let table = try #require(report.capabilities.last)
        #expect(table["table_offset"] == .bits(0x8000))
        #expect(table["pending_offset"] == .bits(0x48000))
        #expect(table["enabled"] == .flag(true) && table["masked"] == .flag(false))
    }

    @Test func `every virtio type has its word, others show their number`() {
        var space = ConfigurationBytes()
        let tail = [UInt8](repeating: 0, count: 8)
        for (index, type) in [UInt8(8), 9, 0xf0, 77].enumerated() {
            space.virtio(type, at: 0x40 + 0x20 * index, stated: 24, tail: tail)
        }
        let report = report(space)
        #expect(
            report.capabilities.map { $0["structure"] } == [
                .text("shared memory"), .text("vendor"), .text("peer notification"),
                .text("unknown"),
            ]
        )
        #expect(report.capabilities.last?["type"] == .number(77))
        #expect(report.capabilities.flatMap(\.problems) == [])
    }

    @Test func `HI-H6: a structure past its BAR, in no BAR or in a reserved one is named`() {
        for (bar, offset, length) in [
            (UInt8(0), UInt32(0x7f001), UInt32(0x1000)), (0, 0x80001, 0), (0, 0, .max),
            (0, .max, .max), (1, 0, 4), (6, 0, 4), (255, 0, 4),
        ] {
            var space = ConfigurationBytes()
            space.virtio(1, at: 0x40, bar: bar, offset: offset, length: length)
            let capability = report(space).capabilities.first
            #expect(capability?.problems.count == 1)
            #expect(capability?.problems.first?.hasPrefix("pci/cap: ") == true)
        }
    }

    @Test func `HI-H6: shared memory of more than four gigabytes is measured with both halves`() {
        var space = ConfigurationBytes()
        space.virtio(
            8,
            at: 0x40,
            length: 0x1000,
            stated: 24,
            tail: [0, 0, 0, 0, 1, 0, 0, 0]
        )
        #expect(report(space).capabilities.first?["size"] == .bits(0x1_0000_1000))
        #expect(report(space).capabilities.first?.problems.count == 1)
    }

    @Test func `HI-H6: without BAR sizes only a reserved number is wrong`() {
        var space = ConfigurationBytes()
        space.virtio(1, at: 0x40, offset: .max)
        space.virtio(1, at: 0x60, bar: 7)
        let capabilities = report(space, bars: .unknown).capabilities
        #expect(capabilities.map(\.problems.count) == [0, 1])
    }

    @Test func `HI-H6: a structure shorter than its type is named`() {
        for (type, stated) in [(UInt8(1), UInt8(15)), (2, 16), (8, 16), (0xf0, 19), (9, 5), (1, 0)]
        {
            var space = ConfigurationBytes()
            space.virtio(type, at: 0x40, stated: stated, tail: [UInt8](repeating: 0, count: 8))
            #expect(report(space).capabilities.first?.problems.isEmpty == false)
        }
    }

    @Test func `HI-H8: a multiplier that is no power of two is named`() {
        for multiplier in [UInt8(1), 3, 12] {
            var space = ConfigurationBytes()
            space.virtio(2, at: 0x40, stated: 20, tail: [multiplier, 0, 0, 0])
            let problems = report(space).capabilities.first?.problems ?? []
            #expect(problems.first?.hasPrefix("pci/notify-range") == true)
        }
    }

    @Test func `HI-H6: an MSI-X table that reaches past its BAR is named`() {
        var space = ConfigurationBytes()
        space.capability(0x11, at: 0x40, [0xff, 0x87, 0, 0xf0, 7, 0, 0, 0, 0, 0])
        #expect(report(space).capabilities.first?.problems.count == 1)
        #expect(report(space).messageVectors == 2048)
    }

    @Test func `HI-H5: a list that loops shows what comes before, and says so`() {
        var space = ConfigurationBytes.net()
        space.set(0x99, UInt8(0x40))
        let report = report(space)
        #expect(report.problems.first?.hasPrefix("pci/cap-loop") == true)
        #expect(report.capabilities.count == CapabilityList.longest)
    }

    @Test func `HI-H5: extended capabilities that loop or leave their space end`() {
        for next in [UInt16(0x100), 0x40, 0xffc] {
            var space = ConfigurationBytes()
            space.extended(0x77, at: 0x100, [])
            space.set(0x102, next << 4 | 1)
            let report = report(space)
            #expect(report.capabilities.count <= ExtendedCapabilityList.longest)
            #expect(report.capabilities.first?.name == nil)
            #expect(report.capabilities.first?.identifier == 0x77)
            #expect(next == 0xffc || report.problems.first?.hasPrefix("pci/cap-loop") == true)
        }
    }

    @Test func `HI-A53: a function that is gone shows no capabilities`() {
        let report = CapabilityReport(
            ConfigurationImage([UInt8](repeating: 0xff, count: 256))
        )
        #expect(report.capabilities.isEmpty)
        #expect(report.problems.first?.hasPrefix("pci/device-gone") == true)
    }

    @Test func `HI-J28: 64 bytes are all that an unprivileged reader gets, and it is told`() {
        let image = ConfigurationImage(ConfigurationBytes.net().bytes.prefix(64))
        let report = CapabilityReport(image, bars: bars)
        #expect(report.capabilities.isEmpty)
        #expect(report.problems.first?.contains("run as root") == true)
    }

    @Test func `HI-H5: no bytes trap or hang, at any length`() {
        var random = SystemRandomNumberGenerator()
        for round in 0..<600 {
            let count = round % 3 == 0 ? Int.random(in: 0...300, using: &random) : 4096
            var bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
            if count > 6 { bytes[6] |= 0x10 }
            if round % 2 == 0, count > 3 {
                bytes.replaceSubrange(0..<4, with: [0xf4, 0x1a, 0x41, 0x10])
            }
            let report = CapabilityReport(ConfigurationImage(bytes), bars: bars)
            #expect(
                report.capabilities.count
                    <= CapabilityList.longest + ExtendedCapabilityList.longest
            )
        }
    }
}

/// BARs as sysfs shows them.
enum PCIResourceTexts {
    /// BAR 0 of 512 KiB and nothing else.
    static var oneBAR: [PCIResource] {
        [PCIResource(number: 0, start: 0x40_0000_0000, size: 0x80000, flags: 0x140204)]
    }
}
