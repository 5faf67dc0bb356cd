import Testing
import VirtioSpec

@testable import VhostPCINet

@Suite struct RegionTableTests {
    private func refusal(
        flags: PeerMemoryInformation.Flags = [],
        window: (UInt64, UInt64) = (0x1000, 0x10000),
        _ regions: (guest: UInt64, size: UInt64, bar: UInt64)...
    ) -> String? {
        let information = PeerMemoryInformation(
            location: .bar(2),
            windowOffset: window.0,
            windowSize: window.1,
            flags: flags,
            generation: 1,
            regions: regions.map {
                .init(guestAddress: $0.guest, size: $0.size, userAddress: 0, barOffset: $0.bar)
            }
        )
        do throws(Refusal) {
            _ = try RegionTable(checking: information)
            return nil
        } catch {
            return error.id
        }
    }

    @Test func `a region may fill the window to the last byte and not beyond`() {
        #expect(refusal((0, 0x10000, 0x1000)) == nil)
        #expect(refusal((0, 0x11000, 0x1000)) == "mem/range")
        #expect(refusal((0, 0x1000, 0x11000)) == "mem/range")
        #expect(refusal((0, 0x1000, 0)) == "mem/range")
    }

    @Test func `HI-D12: a region that is empty or wraps is refused`() {
        #expect(refusal((0, 0, 0x1000)) == "mem/range")
        #expect(refusal((.max - 0xfff, 0x2000, 0x1000)) == "mem/range")
        #expect(refusal((0, 0x2000, .max - 0xfff)) == "mem/range")
    }

    @Test func `VPN-D-12: a table that is unaligned, unordered or overlapping is refused`() {
        #expect(refusal((1, 0x1000, 0x1000)) == "mem/range")
        #expect(refusal((0, 0x1001, 0x1000)) == "mem/range")
        #expect(refusal((0, 0x1000, 0x1001)) == "mem/range")
        #expect(refusal((0x2000, 0x1000, 0x1000), (0, 0x1000, 0x2000)) == "mem/overlap")
        #expect(refusal((0, 0x2000, 0x1000), (0x1000, 0x1000, 0x3000)) == "mem/overlap")
        #expect(refusal((0, 0x1000, 0x1000), (0x1000, 0x1000, 0x2000)) == nil)
    }

    @Test func `what is not supported is refused by name`() {
        #expect(refusal(flags: .splitWindow, (0, 0x1000, 0x1000)) == "vpci/bar")
        #expect(refusal(flags: .translatedAddresses, (0, 0x1000, 0x1000)) == "mem/range")
    }

    @Test func `VPN-M-14: unknown flags of the message are ignored`() {
        #expect(refusal(flags: .init(rawValue: 0xffff_fffc), (0, 0x1000, 0x1000)) == nil)
    }
}
