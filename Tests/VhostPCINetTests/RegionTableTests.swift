import Testing
import VirtioSpec

@testable import VhostPCINet

@Suite struct RegionTableTests {
    private func table(
        _ regions: (guest: UInt64, size: UInt64, offset: UInt64, bar: UInt32)...,
        isSplit: Bool = true
    ) throws(Refusal) -> RegionTable {
        try RegionTable(
            checking: PeerMemoryInformation(
                location: .bar(2),
                windowOffset: 0x1000,
                windowSize: 0x10000,
                flags: isSplit ? .splitWindow : [],
                generation: 1,
                regions: regions.map {
                    .init(
                        guestAddress: $0.guest,
                        size: $0.size,
                        userAddress: 0,
                        barOffset: $0.offset,
                        bar: $0.bar
                    )
                }
            )
        )
    }

    @Test func `VPN-M-19: a split window is what its regions need of each BAR`() throws {
        let table = try table(
            (0, 0x1000, 0x2000, 2),
            (0x1000, 0x1000, 0x8000, 4),
            (0x4000, 0x3000, 0, 4),
        )
        #expect(table.windows.map(\.bar) == [2, 4])
        #expect(table.windows[0] == .init(bar: 2, offset: 0x1000, size: 0x10000))
        #expect(table.windows[1] == .init(bar: 4, offset: 0, size: 0x9000))
        #expect(table.regions.map { table.window(of: $0) } == [0, 1, 1])
    }

    @Test func `VPN-M-19: without the flag the entries' own BARs mean nothing`() throws {
        let table = try table((0, 0x1000, 0x2000, 5), isSplit: false)
        #expect(table.windows.map(\.bar) == [2])
        #expect(table.window(of: table.regions[0]) == 0)
    }

    @Test func `VPN-M-19: a BAR that does not exist, or a region that leaves it, is refused`() {
        func id(_ body: () throws(Refusal) -> RegionTable) -> String? {
            do throws(Refusal) {
                _ = try body()
                return nil
            } catch {
                return error.id
            }
        }
        #expect(id { () throws(Refusal) in try table((0, 0x1000, 0x2000, 6)) } == "vpci/bar")
        #expect(id { () throws(Refusal) in try table((0, 0x1000, 0x2000, .max)) } == "vpci/bar")
        #expect(id { () throws(Refusal) in try table((0, 0x1000, 0x11000, 2)) } == "mem/range")
        #expect(
            id { () throws(Refusal) in try table((0, 0x2000, .max - 0xfff, 4)) } == "mem/range"
        )
        #expect(id { () throws(Refusal) in try table((0, 0x1000, 1, 4)) } == "mem/range")
    }

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
        #expect(refusal(flags: .translatedAddresses, (0, 0x1000, 0x1000)) == "mem/range")
    }

    @Test func `VPN-M-14: unknown flags of the message are ignored`() {
        #expect(refusal(flags: .init(rawValue: 0xffff_fffc), (0, 0x1000, 0x1000)) == nil)
    }
}
