// swift-tools-version: 6.2

import PackageDescription

/// Every Swift target is built with the same rules: language mode 6, explicit `unsafe`, no warnings.
let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .treatAllWarnings(as: .error),
]

let strictC: [CSetting] = [
    .unsafeFlags(["-Wall", "-Wextra", "-Werror"])
]

/// A library of the product; its tests live in `Tests/<name>Tests`.
func library(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: strict)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name + "Tests", dependencies: dependencies, swiftSettings: strict)
}

let argumentParser = Target.Dependency.product(
    name: "ArgumentParser",
    package: "swift-argument-parser"
)
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let yams = Target.Dependency.product(name: "Yams", package: "Yams")
let histogram = Target.Dependency.product(name: "Histogram", package: "hdrhistogram-swift")

let package = Package(
    name: "vhost-pci",
    products: [
        .executable(name: "vhost-pci", targets: ["vhost-pci"])
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    ],
    targets: [
        .target(
            name: "CSystemShims",
            path: "CSystemShims",
            cSettings: strictC,
            linkerSettings: [.linkedLibrary("pci"), .linkedLibrary("numa")]
        ),
        library("HostSystem", ["CSystemShims"]),
        library("GuestMemory", ["HostSystem", "CSystemShims"]),
        library("VirtioSpec", []),
        library("Virtqueue", ["GuestMemory", "VirtioSpec", "CSystemShims"]),
        library("PCI", ["HostSystem", "GuestMemory", "Virtqueue", "VirtioSpec", "CSystemShims"]),
        library(
            "Virtio",
            ["Virtqueue", "PCI", "GuestMemory", "HostSystem", "VirtioSpec", "CSystemShims"]
        ),
        library(
            "VirtioNet",
            ["Virtio", "Virtqueue", "PCI", "GuestMemory", "HostSystem", "VirtioSpec"]
        ),
        library(
            "AdminQueue",
            ["Virtio", "Virtqueue", "PCI", "GuestMemory", "HostSystem", "VirtioSpec"]
        ),
        library("VhostUser", ["GuestMemory", "HostSystem", "VirtioSpec", "CSystemShims"]),
        library(
            "DeviceCheck",
            ["Virtio", "Virtqueue", "PCI", "GuestMemory", "HostSystem", "VirtioSpec"]
        ),
        library(
            "VhostPCINet",
            [
                "Virtio", "Virtqueue", "VhostUser", "PCI", "GuestMemory", "HostSystem",
                "VirtioSpec",
            ]
        ),
        library(
            "PollEngine",
            ["Virtqueue", "GuestMemory", "HostSystem", "VirtioSpec", "CSystemShims"]
        ),
        library(
            "VfioUser",
            ["PCI", "GuestMemory", "HostSystem", "Virtqueue", "VirtioSpec", "CSystemShims"]
        ),
        library("VFIO", ["PCI", "GuestMemory", "HostSystem", "Virtqueue", "CSystemShims"]),
        .executableTarget(
            name: "vhost-pci",
            dependencies: [
                "AdminQueue", "VhostPCINet", "VhostUser", "PollEngine", "VirtioNet", "VFIO",
                "VfioUser", "DeviceCheck", "Virtio", "Virtqueue", "PCI", "GuestMemory",
                "HostSystem",
                "VirtioSpec", "RingBench",
                argumentParser, logging, histogram, yams,
            ],
            swiftSettings: strict
        ),
        .target(
            name: "CRingBaseline",
            path: "tools/bench/CRingBaseline",
            cSettings: strictC + [.unsafeFlags(["-O3"])]
        ),
        .target(
            name: "RingBench",
            dependencies: [
                "CRingBaseline", "PollEngine", "Virtqueue", "GuestMemory", "HostSystem",
                "VirtioSpec",
            ],
            path: "tools/bench/RingBench",
            swiftSettings: strict
        ),
        .executableTarget(
            name: "device-probe",
            dependencies: [
                "VFIO", "Virtio", "Virtqueue", "PCI", "GuestMemory", "HostSystem", "VirtioSpec",
            ],
            path: "tools/rig/DeviceProbe",
            swiftSettings: strict
        ),
        tests("HostSystem", ["HostSystem", "CSystemShims", "RingSupport"]),
        tests("GuestMemory", ["GuestMemory", "HostSystem"]),
        .systemLibrary(name: "CLinuxVirtio", path: "Tests/CLinuxVirtio"),
        tests("VirtioSpec", ["VirtioSpec", "CLinuxVirtio"]),
        .target(
            name: "CAllocationCounter",
            path: "Tests/CAllocationCounter",
            cSettings: strictC
        ),
        .target(
            name: "RingSupport",
            dependencies: ["Virtqueue", "GuestMemory", "HostSystem", "VirtioSpec"],
            path: "Tests/RingSupport",
            swiftSettings: strict
        ),
        tests(
            "Virtqueue",
            ["Virtqueue", "GuestMemory", "HostSystem", "VirtioSpec", "RingSupport"]
        ),
        .target(
            name: "HostSupport",
            dependencies: ["HostSystem"],
            path: "Tests/HostSupport",
            swiftSettings: strict
        ),
        tests(
            "PCI",
            ["PCI", "Virtqueue", "GuestMemory", "HostSystem", "VirtioSpec", "HostSupport"]
        ),
        tests(
            "VFIO",
            [
                "VFIO", "Virtio", "Virtqueue", "PCI", "GuestMemory", "HostSystem", "VirtioSpec",
                "CSystemShims", "CLinuxVirtio",
            ]
        ),
        tests(
            "VfioUser",
            [
                "VfioUser", "AdminQueue", "DeviceCheck", "Virtio", "VirtioNet", "VhostPCINet",
                "Virtqueue", "PCI", "GuestMemory", "HostSystem", "VirtioSpec", "CSystemShims",
                "FunctionSupport", "RingSupport",
            ]
        ),
        .target(
            name: "FunctionSupport",
            dependencies: [
                "Virtio", "Virtqueue", "PCI", "GuestMemory", "HostSystem", "VirtioSpec",
            ],
            path: "Tests/FunctionSupport",
            swiftSettings: strict
        ),
        tests(
            "Virtio",
            [
                "Virtio", "Virtqueue", "PCI", "GuestMemory", "HostSystem", "VirtioSpec",
                "RingSupport", "FunctionSupport",
            ]
        ),
        .target(
            name: "NetSupport",
            dependencies: ["Virtio", "Virtqueue", "GuestMemory", "VirtioSpec"],
            path: "Tests/NetSupport",
            swiftSettings: strict
        ),
        tests(
            "VirtioNet",
            [
                "VirtioNet", "PollEngine", "NetSupport", "FunctionSupport", "RingSupport", "Virtio",
                "Virtqueue", "PCI", "GuestMemory", "HostSystem", "VirtioSpec",
            ]
        ),
        tests(
            "AdminQueue",
            ["AdminQueue", "Virtio", "Virtqueue", "PCI", "GuestMemory", "HostSystem", "VirtioSpec"]
        ),
        tests(
            "DeviceCheck",
            [
                "DeviceCheck", "Virtio", "Virtqueue", "PCI", "GuestMemory", "HostSystem",
                "VirtioSpec", "FunctionSupport",
            ]
        ),
        tests(
            "VhostUser",
            ["VhostUser", "GuestMemory", "HostSystem", "VirtioSpec", "RingSupport"]
        ),
        tests(
            "VhostPCINet",
            [
                "VhostPCINet", "AdminQueue", "Virtio", "Virtqueue", "VhostUser", "PCI",
                "GuestMemory", "HostSystem", "VirtioSpec", "CSystemShims", "FunctionSupport",
                "RingSupport",
            ]
        ),
        .testTarget(
            name: "CommandTests",
            dependencies: [
                "vhost-pci", "AdminQueue", "DeviceCheck", "PollEngine", "VhostPCINet", "VhostUser",
                "VirtioNet", "VFIO", "Virtqueue", "GuestMemory", "HostSystem", "PCI", "Virtio",
                "HostSupport", "NetSupport", "VirtioSpec", argumentParser, histogram,
            ],
            swiftSettings: strict
        ),
        tests(
            "PollEngine",
            [
                "PollEngine", "Virtqueue", "GuestMemory", "HostSystem", "VirtioSpec", "RingSupport",
                "CAllocationCounter",
            ]
        ),
    ]
)
