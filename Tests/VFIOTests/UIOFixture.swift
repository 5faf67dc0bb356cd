import Glibc
import HostSystem
import PCI

@testable import VFIO

/// A host with one function on uio_pci_generic: a page of registers, a small BAR, ports.
final class UIOFixture {
    static let folder = FixtureTree.folder
    let tree: FixtureTree
    let pages = FakePages()

    init() throws {
        tree = try FixtureTree(group: nil)
        tree.link("\(Self.folder)/driver", "../../../../bus/pci/drivers/uio_pci_generic")
        tree.folder("\(Self.folder)/uio/uio3")
        var space = [UInt8](repeating: 0, count: 256)
        space.replaceSubrange(0..<8, with: [0xf4, 0x1a, 0x41, 0x10, 0x07, 0x04, 0x10, 0])
        space[0x3d] = 1
        tree.bytes("\(Self.folder)/config", space)
        tree.file(
            "\(Self.folder)/resource",
            """
            0x00000000fe000000 0x00000000fe003fff 0x0000000000040200
            0x00000000fe004040 0x00000000fe00407f 0x0000000000040200
            0x000000000000c000 0x000000000000c01f 0x0000000000040101
            0x0000000000000000 0x0000000000000000 0x0000000000000000
            0x0000000000000000 0x00000000000fffff 0x0000000020140204
            nonsense
            0x00000000fe800000 0x00000000fe83ffff 0x0000000000046200

            """
        )
        for (bar, size) in [(0, 0x4000), (1, 0x1000), (2, 0x20)] {
            tree.bytes("\(Self.folder)/resource\(bar)", [UInt8](repeating: 0, count: size))
        }
        tree.file("\(Self.folder)/reset")
        _ = unsafe mkfifo(tree.root + "/dev/uio3", 0o600)
    }

    var host: UIOHost {
        UIOHost(tree: HostTree(root: tree.root), address: FixtureTree.address)
    }

    func open(withoutIsolation: Bool = true) throws(PCIError) -> UIODevice {
        try UIODevice(host, withoutIsolation: withoutIsolation, pages: pages)
    }

    func poke(_ file: String, _ offset: Int, _ bytes: [UInt8]) throws {
        try FileDescriptor.open("\(tree.root)/\(file)", writable: true)
            .write(at: UInt64(offset), bytes)
    }

    func peek(_ file: String, _ offset: Int, _ count: Int) throws -> [UInt8] {
        try FileDescriptor.open("\(tree.root)/\(file)", writable: false)
            .read(at: UInt64(offset), count: count)
    }

    /// Command register as it stands.
    var command: UInt16 {
        get throws {
            let bytes = try peek("\(Self.folder)/config", 4, 2)
            return UInt16(bytes[0]) | UInt16(bytes[1]) << 8
        }
    }

    func refusal(withoutIsolation: Bool = true) -> String {
        failure { _ = try open(withoutIsolation: withoutIsolation) }
    }
}

extension FileDescriptor {
    /// Writes to a pipe, as a driver signals its node.
    func put(_ bytes: [UInt8]) -> Bool {
        unsafe bytes.withUnsafeBytes { space in
            unsafe Glibc.write(rawValue, space.baseAddress, space.count) == bytes.count
        }
    }
}
