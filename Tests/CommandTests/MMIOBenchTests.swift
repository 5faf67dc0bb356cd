import HostSystem
import Testing

@testable import vhost_pci

@Suite struct MMIOBenchTests {
    @Test func `VFU-S-26: every kind of access is measured, doorbells by eventfd too`() throws {
        var report = MMIOBenchReport()
        try report.measure(100, serverCore: Topology.usableCPUs.last ?? 0)
        let lines = report.lines
        for name in [
            "register read", "register write", "doorbell by a message", "doorbell by an eventfd",
            "DMA read by a mapping", "DMA read by a message",
        ] {
            #expect(lines.contains { $0.hasPrefix(name) && $0.hasSuffix(" 100") }, "\(lines)")
        }
    }
}
