"""Captions of scenes in languages other than English.

The templates avoid agreement in gender and case (a colour stands as a noun or behind "of colour"),
so that words can be put in without grammar.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from schemas.scene import BACKGROUNDS, COLOURS, SHAPES, SIZES, Scene


@dataclass(frozen=True)
class Language:
    """Words in the order of the scene's vocabulary, and templates for one thing and for two."""

    shapes: tuple[str, ...]
    colours: tuple[str, ...]
    sizes: tuple[str, ...]
    backgrounds: tuple[str, ...]
    one: tuple[str, ...]
    two: tuple[str, ...]

    def caption(self, rng: random.Random, scene: Scene) -> str:
        """The scene in this language."""
        words = {"bg": self.backgrounds[list(BACKGROUNDS).index(scene.background)]}
        for number, thing in enumerate(scene.things, 1):
            words[f"shape{number}"] = self.shapes[SHAPES.index(thing.shape)]
            words[f"colour{number}"] = self.colours[list(COLOURS).index(thing.colour)]
            if thing.size is not None:
                words["size"] = self.sizes[list(SIZES).index(thing.size)]
        return rng.choice(self.one if len(scene.things) == 1 else self.two).format(**words)


# Shapes: circle, square, triangle, cross. Colours: red, green, blue, yellow, purple, cyan.
# Sizes: small, large. Backgrounds: white, black, grey.
FIRST_LANGUAGES: dict[str, Language] = {
    "de": Language(
        ("Kreis", "Quadrat", "Dreieck", "Kreuz"),
        ("Rot", "Grün", "Blau", "Gelb", "Violett", "Türkis"),
        ("klein", "groß"),
        ("weißem", "schwarzem", "grauem"),
        (
            "{shape1} in {colour1}, {size} gezeichnet, auf {bg} Hintergrund",
            "Das Bild zeigt {shape1} in {colour1} auf {bg} Hintergrund",
        ),
        ("{shape1} in {colour1} neben {shape2} in {colour2} auf {bg} Hintergrund",),
    ),
    "fr": Language(
        ("cercle", "carré", "triangle", "croix"),
        ("rouge", "verte", "bleue", "jaune", "violette", "cyan"),
        ("petite", "grande"),
        ("blanc", "noir", "gris"),
        (
            "{shape1} de couleur {colour1} et de {size} taille sur un fond {bg}",
            "une image avec {shape1} de couleur {colour1}, sur fond {bg}",
        ),
        ("{shape1} de couleur {colour1} à côté de {shape2} de couleur {colour2}, fond {bg}",),
    ),
    "es": Language(
        ("círculo", "cuadrado", "triángulo", "cruz"),
        ("rojo", "verde", "azul", "amarillo", "morado", "cian"),
        ("pequeño", "grande"),
        ("blanco", "negro", "gris"),
        (
            "{shape1} de color {colour1} y tamaño {size} sobre un fondo {bg}",
            "dibujo de {shape1} de color {colour1} con el fondo {bg}",
        ),
        ("{shape1} de color {colour1} junto a {shape2} de color {colour2} sobre fondo {bg}",),
    ),
    "it": Language(
        ("cerchio", "quadrato", "triangolo", "croce"),
        ("rosso", "verde", "blu", "giallo", "viola", "ciano"),
        ("piccole", "grandi"),
        ("bianco", "nero", "grigio"),
        ("{shape1} di colore {colour1} e di {size} dimensioni su uno sfondo {bg}",),
        ("{shape1} di colore {colour1} accanto a {shape2} di colore {colour2}, sfondo {bg}",),
    ),
    "ru": Language(
        ("круг", "квадрат", "треугольник", "крест"),
        ("красного", "зелёного", "синего", "жёлтого", "фиолетового", "голубого"),
        ("маленький", "большой"),
        ("белом", "чёрном", "сером"),
        ("{shape1} {colour1} цвета, {size} размер, на {bg} фоне",),
        ("{shape1} {colour1} цвета рядом: {shape2} {colour2} цвета на {bg} фоне",),
    ),
    "ja": Language(
        ("円", "四角形", "三角形", "十字"),
        ("赤い", "緑の", "青い", "黄色い", "紫の", "水色の"),
        ("小さな", "大きな"),
        ("白い", "黒い", "灰色の"),
        ("{bg}背景に{size}{colour1}{shape1}があります",),
        ("{bg}背景に{colour1}{shape1}と{colour2}{shape2}が並んでいます",),
    ),
    "zh": Language(
        ("圆形", "正方形", "三角形", "十字"),
        ("红色", "绿色", "蓝色", "黄色", "紫色", "青色"),
        ("小", "大"),
        ("白色", "黑色", "灰色"),
        ("{bg}背景上的{colour1}{size}{shape1}图片",),
        ("{bg}背景上有一个{colour1}{shape1}和一个{colour2}{shape2}",),
    ),
}

SECOND_LANGUAGES: dict[str, Language] = {
    "nl": Language(
        ("een cirkel", "een vierkant", "een driehoek", "een kruis"),
        ("rood", "groen", "blauw", "geel", "paars", "cyaan"),
        ("klein", "groot"),
        ("witte", "zwarte", "grijze"),
        ("{shape1} in het {colour1}, {size} getekend tegen een {bg} achtergrond",),
        ("{shape1} in het {colour1} naast {shape2} in het {colour2} op een {bg} achtergrond",),
    ),
    "pl": Language(
        ("koło", "kwadrat", "trójkąt", "krzyż"),
        ("czerwonym", "zielonym", "niebieskim", "żółtym", "fioletowym", "turkusowym"),
        ("mały", "duży"),
        ("białym", "czarnym", "szarym"),
        ("{shape1} w kolorze {colour1}, {size} rozmiar, na {bg} tle",),
        ("{shape1} w kolorze {colour1} oraz {shape2} w kolorze {colour2} na {bg} tle",),
    ),
    "pt": Language(
        ("círculo", "quadrado", "triângulo", "cruz"),
        ("vermelha", "verde", "azul", "amarela", "roxa", "ciano"),
        ("pequeno", "grande"),
        ("branco", "preto", "cinzento"),
        ("{shape1} de cor {colour1} e tamanho {size} sobre um fundo {bg}",),
        ("{shape1} de cor {colour1} ao lado de {shape2} de cor {colour2}, com fundo {bg}",),
    ),
    "sv": Language(
        ("en cirkel", "en kvadrat", "en triangel", "ett kors"),
        ("rött", "grönt", "blått", "gult", "lila", "turkost"),
        ("liten", "stor"),
        ("vit", "svart", "grå"),
        ("{shape1} i {colour1}, ganska {size}, mot en {bg} bakgrund",),
        ("{shape1} i {colour1} bredvid {shape2} i {colour2} mot en {bg} bakgrund",),
    ),
    "tr": Language(
        ("daire", "kare", "üçgen", "haç"),
        ("kırmızı", "yeşil", "mavi", "sarı", "mor", "turkuaz"),
        ("küçük", "büyük"),
        ("beyaz", "siyah", "gri"),
        ("{bg} arka plan üzerinde {size} {colour1} bir {shape1}",),
        ("{bg} arka plan üzerinde {colour1} bir {shape1} ile {colour2} bir {shape2}",),
    ),
    "ko": Language(
        ("원", "정사각형", "삼각형", "십자가"),
        ("빨간색", "초록색", "파란색", "노란색", "보라색", "청록색"),
        ("작은", "큰"),
        ("흰색", "검은색", "회색"),
        ("{bg} 배경에 있는 {size} {colour1} {shape1}",),
        ("{bg} 배경에 있는 {colour1} {shape1}과 {colour2} {shape2}",),
    ),
    "el": Language(
        ("κύκλος", "τετράγωνο", "τρίγωνο", "σταυρός"),
        ("κόκκινο", "πράσινο", "μπλε", "κίτρινο", "μωβ", "γαλάζιο"),
        ("μικρό", "μεγάλο"),
        ("λευκό", "μαύρο", "γκρι"),
        ("{shape1} σε {colour1} χρώμα και {size} μέγεθος, με {bg} φόντο",),
        ("{shape1} σε {colour1} χρώμα δίπλα σε {shape2} σε {colour2} χρώμα, με {bg} φόντο",),
    ),
    "ar": Language(
        ("دائرة", "مربع", "مثلث", "صليب"),
        ("الأحمر", "الأخضر", "الأزرق", "الأصفر", "البنفسجي", "السماوي"),
        ("صغير", "كبير"),
        ("بيضاء", "سوداء", "رمادية"),
        ("{shape1} باللون {colour1} بحجم {size} على خلفية {bg}",),
        ("{shape1} باللون {colour1} بجانب {shape2} باللون {colour2} على خلفية {bg}",),
    ),
}
